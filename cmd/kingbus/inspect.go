package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kingbus/internal/cluster"
	"kingbus/internal/segment"
	"kingbus/internal/stream"
	"kingbus/internal/vfs"
)

func inspectCommand(p process) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "inspect DIR",
		Short: "Print what is in a data folder, and verify every checksum",
		Long: `Print what is in a data folder, and verify every checksum: of segments and their
records, of checkpoints and index files, and of the binlog events.

It only reads. The folder may be in use, or damaged; it need not be complete. The
exit code is 4 if there is damage.`,
		Example: `  kingbus inspect /var/lib/kingbus
  kingbus inspect --entries /var/lib/kingbus | less
  kingbus inspect --json /var/lib/kingbus`,
		Args: cobra.ExactArgs(1),
	}
	entries := cmd.Flags().Bool("entries", false, "print a line for every entry of the log")
	asJSON := cmd.Flags().Bool("json", false, "print what was found as JSON, without the entries")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		in := inspection{out: p.stdout, dir: filepath.Clean(args[0]), entries: *entries}
		if *asJSON {
			in.out, in.entries = io.Discard, false
		}
		if isTerminal(p.stderr) && !in.entries {
			in.shown = newProgress(p.stderr, "")
		}
		if err := in.run(vfs.OS{}); err != nil {
			return withCode(exitFailed, fmt.Errorf("inspect: %w", err))
		}
		if *asJSON {
			if err := writeJSON(p.stdout, in.report()); err != nil {
				return withCode(exitFailed, err)
			}
		}
		if n := len(in.damage); n > 0 {
			return withCode(exitDamage, fmt.Errorf("%s is damaged in %d places; keep a copy of it before you do anything else", in.dir, n))
		}
		return nil
	}
	return cmd
}

// inspection walks through one data folder.
type inspection struct {
	out     io.Writer
	dir     string
	entries bool
	damage  []string
	folder  cluster.Folder
	states  []stream.StateSummary // of the checkpoints of folder
	index   indexSum
	shown   *progress // nil = nobody watches
	size    uint64    // of the log, in bytes

	// Of the walk through the log:
	walker   stream.Walker
	segment  segmentSum
	segments []segmentSum // those before it
	total    segmentSum
	synced   int64
	torn     *segment.Found // a bad record that could be a torn write
}

// segmentSum counts what is in a segment.
type segmentSum struct {
	file            string
	size            int64
	created         time.Time
	first, last     uint64
	term            uint64 // of last
	entries, dead   int
	events, checked int
	bytes           int64 // of events
}

func (in *inspection) damaged(format string, args ...any) {
	in.damage = append(in.damage, fmt.Sprintf(format, args...))
}

func (in *inspection) printf(format string, args ...any) {
	in.shown.end()
	_, _ = fmt.Fprintf(in.out, format+"\n", args...) // as with fmt.Println, who closes the output has seen enough
}

func (in *inspection) run(fsys vfs.FS) error {
	var err error
	if in.folder, err = cluster.Inspect(fsys, in.dir); err != nil {
		return err
	}
	f := in.folder
	for _, p := range f.Problems {
		in.damaged("%v", p)
	}
	in.printf("data folder   %s, folder format %d", in.dir, f.Format)
	if f.ClusterID == 0 {
		in.printf("node          no cluster yet, raft id %d", f.RaftID)
	} else {
		in.printf("node          cluster %d, raft id %d", f.ClusterID, f.RaftID)
	}
	if f.Installing {
		in.printf("              it was fetching its log from other nodes, and has only a part of it; the next start goes on with that")
	}
	in.printf("hard state    term %d, vote %d, committed entry %d", f.Term, f.Vote, f.Committed)
	in.checkpoints()
	if err := in.readIndex(fsys); err != nil {
		return err
	}
	in.printf("log")
	if err := in.log(fsys); err != nil {
		return err
	}
	in.verdict()
	return nil
}

// partial tells whether the folder is not meant to have everything: it waits for
// its cluster, or for what it fetches from others.
func (in *inspection) partial() bool {
	return in.folder.Installing || in.folder.RaftID != 0 && in.folder.ClusterID == 0
}

func (in *inspection) checkpoints() {
	for _, c := range in.folder.Checkpoints {
		in.printf("checkpoint    %s: entry %d of term %d, data format %d, %s", filepath.Base(c.File), c.Index, c.Term, c.Format, bytesText(uint64(c.Size)))
		for _, m := range c.Members {
			who := memberText(m)
			if m.Name != "" {
				who += fmt.Sprintf(", raft id %d", m.ID)
			}
			in.printf("              member %s, %s", who, map[bool]string{true: "learner", false: "voter"}[m.Learner])
		}
		s, err := stream.DescribeState(c.State)
		in.states = append(in.states, s)
		switch {
		case err != nil:
			in.damaged("%s: %v", c.File, err)
		case s.End.File == "":
			in.printf("              the stream is empty")
		default:
			in.printf("              the stream ends at %s (%s of the source), %d files, %d transactions", s.End, s.SourceEnd, len(s.Files), s.Transactions)
			in.printf("              executed %s", setText(s.Executed))
			in.printf("              purged %s", setText(s.Purged))
		}
	}
	if len(in.folder.Checkpoints) == 0 && !in.partial() {
		in.damaged("%s: there is no checkpoint that can be used", in.dir)
	}
}

func (in *inspection) readIndex(fsys vfs.FS) error {
	files, err := stream.InspectIndex(fsys, in.dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		in.index.Files++
		in.index.Points += f.Points
		if f.Err != nil {
			in.damaged("%s: %v; that makes reading slower and loses nothing: remove the file", f.File, f.Err)
		}
	}
	in.printf("index         %d files, %d points", in.index.Files, in.index.Points)
	return nil
}

func (in *inspection) log(fsys vfs.FS) error {
	if in.shown != nil {
		in.size = logSize(fsys, in.folder.LogDir)
		defer in.shown.end()
	}
	err := segment.Inspect(fsys, in.folder.LogDir, in.found)
	if errors.Is(err, fs.ErrNotExist) {
		in.damaged("%s: %v", in.folder.LogDir, err)
		return nil
	}
	if err != nil {
		return err
	}
	in.endSegment()
	return nil
}

// logSize returns how large the segments are together, as far as that can be told.
func logSize(fsys vfs.FS, dir string) (sum uint64) {
	names, _ := fsys.ReadDir(dir) // what cannot be read is found by the walk
	for _, name := range names {
		if f, err := fsys.Open(filepath.Join(dir, name)); err == nil {
			if n, err := f.Size(); err == nil {
				sum += uint64(n)
			}
			_ = f.Close()
		}
	}
	return sum
}

// found takes one thing that the walk came across.
func (in *inspection) found(f segment.Found) error {
	if in.torn != nil { // something follows it, so it is damage
		in.damaged("%s at offset %d: %v", in.torn.File, in.torn.Offset, in.torn.Err)
		in.torn = nil
	}
	switch {
	case f.Err != nil:
		in.walker.Lost()
		if f.Offset == 0 || in.total.last < in.folder.Committed || f.Offset < in.synced {
			in.damaged("%s at offset %d: %v", f.File, f.Offset, f.Err)
			return nil
		}
		in.torn = &segment.Found{File: f.File, Offset: f.Offset, Err: f.Err}
	case f.Header != nil:
		in.endSegment()
		in.segment = segmentSum{file: f.File, size: f.Size, created: time.Unix(0, f.Header.Created), first: f.Header.First}
		in.synced = 0
		if in.total.entries == 0 && in.total.file == "" {
			in.total.file, in.total.first = f.File, f.Header.First
		}
	case f.Entry != nil:
		in.entry(f)
	}
	return nil
}

func (in *inspection) entry(f segment.Found) {
	e := f.Entry
	in.synced = f.Synced
	if in.shown != nil {
		in.shown.show("reading the log", uint64(in.total.size+f.Offset), in.size)
	}
	d, err := in.walker.Entry(e.Index, e.Payload)
	if err != nil {
		in.damaged("%s at offset %d: entry %d: %v", f.File, f.Offset, e.Index, err)
	}
	for _, s := range []*segmentSum{&in.segment, &in.total} {
		s.last, s.term = e.Index, e.Term
		s.entries++
		s.events += d.Events
		s.checked += d.Checked
		s.bytes += int64(d.Bytes)
		if d.Dead {
			s.dead++
		}
	}
	if !in.entries {
		return
	}
	text := d.Text
	if d.Dead {
		text += ", does not count"
	}
	if err != nil {
		text += ", DAMAGED: " + err.Error()
	}
	in.printf("    %d term %d at %d: %s %s%s", e.Index, e.Term, f.Offset, d.Kind, printable(text), typesText(d.Types))
}

func (in *inspection) endSegment() {
	s := in.segment
	if s.file == "" {
		return
	}
	what := "empty"
	if s.entries > 0 {
		what = fmt.Sprintf("entries %d to %d, %d events", s.first, s.last, s.events)
	}
	if s.dead > 0 {
		what += fmt.Sprintf(", %d entries do not count", s.dead)
	}
	in.printf("  %s  %s, made %s, %s", filepath.Base(s.file), bytesText(uint64(s.size)), s.created.UTC().Format(time.RFC3339), what)
	in.segments = append(in.segments, s)
	in.total.size += s.size
	in.segment = segmentSum{}
}

func (in *inspection) verdict() {
	t := in.total
	if t.last < in.folder.Committed && !in.partial() && (t.entries > 0 || in.folder.Committed > 1) {
		in.damaged("%s: the log ends with entry %d, but entry %d was committed: entries are missing", in.folder.LogDir, t.last, in.folder.Committed)
	}
	if in.torn != nil {
		in.printf("torn write    %s at offset %d: %v. Nothing behind it was acknowledged; a crash leaves that, or a node that is writing. The next start cuts it off", in.torn.File, in.torn.Offset, in.torn.Err)
	}
	if t.entries > 0 {
		in.printf("last entry    term %d, entry %d", t.term, t.last)
	}
	in.printf("total         %d entries, %d events in %s; the CRC32 of %d events was checked", t.entries, t.events, bytesText(uint64(t.bytes)), t.checked)
	if len(in.damage) == 0 {
		in.printf("healthy: every checksum is right")
		return
	}
	in.printf("DAMAGED:")
	for _, d := range in.damage {
		in.printf("  %s", printable(d))
	}
}

func typesText(types map[string]int) string {
	if len(types) == 0 {
		return ""
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(types)) {
		parts = append(parts, fmt.Sprintf("%d %s", types[name], name))
	}
	return " (" + strings.Join(parts, ", ") + ")"
}
