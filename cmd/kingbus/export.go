package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"kingbus/internal/admin"
	"kingbus/internal/cluster"
	"kingbus/internal/stream"
	"kingbus/internal/vfs"
)

// currentFile stands for the newest binlog file.
const currentFile = "current"

func exportCommand(p process) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "export --file NAME --out F",
		Short: "Write a binlog file as MySQL would have it on disk",
		Long: `Write a binlog file as MySQL would have it on disk: a finished file is equal,
byte for byte, to that of the source.

It is fetched from the node that runs here, or with --data-dir from the folder of
a node that is stopped.`,
		Example: `  kingbus export --file binlog.000042 --out /tmp/binlog.000042
  kingbus export --file current --out - | mysqlbinlog -
  kingbus export --file binlog.000042 --out binlog.000042 --data-dir /var/lib/kingbus   # of a stopped node`,
		Args: cobra.NoArgs,
	}
	file := cmd.Flags().String("file", "", "name of the binlog file; \"current\" is the newest, which goes up to the last committed transaction")
	out := cmd.Flags().String("out", "", "file to write, which must not exist; \"-\" is the standard output")
	dir := cmd.Flags().String("data-dir", "", "data folder of a node that is stopped")
	asJSON := cmd.Flags().Bool("json", false, "print what was written as JSON")
	ask := askFlags(cmd, p)
	completeWith(cmd, "file", ask, binlogNames)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *file == "" || *out == "" {
			return withCode(exitUsage, errors.New("both --file NAME and --out F are needed; `kingbus binlog list` shows the files"))
		}
		if *asJSON && *out == "-" {
			return withCode(exitUsage, errors.New("--json would be among the binlog: give --out a file"))
		}
		var shown *progress // nil = nobody watches
		if isTerminal(p.stderr) && (*out != "-" || !isTerminal(p.stdout)) {
			shown = newProgress(p.stderr, "")
			defer shown.end()
		}
		fetch := func(w io.Writer) error { return exportFolder(cmd.Context(), *dir, *file, w, shown) }
		if *dir == "" {
			c, err := ask()
			if err != nil {
				return err
			}
			fetch = func(w io.Writer) error { return c.export(cmd.Context(), *file, w, shown) }
		}
		if *out == "-" {
			return withCode(exitFailed, fetch(p.stdout))
		}
		n, err := writeNew(*out, fetch)
		shown.end()
		switch {
		case err == nil && *asJSON:
			err = writeJSON(p.stdout, exported{*out, n})
		case err == nil:
			_, err = fmt.Fprintf(p.stdout, "wrote %s, %d bytes\n", *out, n)
		}
		return withCode(exitFailed, err)
	}
	return cmd
}

// exported is what `kingbus export --json` prints.
type exported struct {
	Out  string `json:"out"`
	Size int64  `json:"size"` // bytes
}

// watched is a file that somebody watches being written.
type watched struct {
	w          io.Writer
	shown      *progress
	name       string
	done, size uint64
}

func (w *watched) Write(b []byte) (int, error) {
	n, err := w.w.Write(b)
	w.done += uint64(n)
	w.shown.show(w.name, w.done, max(w.size, w.done)) // it may have grown meanwhile
	return n, err
}

// export fetches a file from the node, and checks that it came whole.
func (c *client) export(ctx context.Context, file string, w io.Writer, shown *progress) error {
	if shown != nil {
		var b admin.Binlogs
		if _, err := c.read(ctx, binlogsPath, &b); err != nil {
			return err
		}
		watch := &watched{w: w, shown: shown, name: file}
		for _, f := range b.Files {
			if f.Name == file || f.Current && file == currentFile {
				watch.size = f.Size
			}
		}
		w = watch
	}
	resp, err := c.get(ctx, binlogsPath+"/"+url.PathEscape(file))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	n, err := io.Copy(w, resp.Body)
	if err != nil {
		return fmt.Errorf("the file broke off after %d bytes: %w; the node's log says why", n, err)
	}
	if size := resp.Trailer.Get(admin.SizeTrailer); size != strconv.FormatInt(n, 10) {
		return fmt.Errorf("the file broke off after %d bytes of %q; the node's log says why", n, size)
	}
	return nil
}

// exportFolder takes a file from the folder of a stopped node, whose lock it
// holds meanwhile.
func exportFolder(ctx context.Context, dir, file string, w io.Writer, shown *progress) error {
	if _, err := os.Stat(filepath.Join(dir, "node")); err != nil {
		return fmt.Errorf("%s is no data folder of kingbus", dir)
	}
	// Its cluster is not to hear of it: only what it knows to be committed is wanted.
	alone := cluster.Peering{Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("the folder is only read")
	}}
	s, err := stream.Open(stream.Config{Dir: dir, Peering: alone})
	if errors.Is(err, vfs.ErrLocked) {
		return fmt.Errorf("kingbus runs on the data folder %s: leave --data-dir away to fetch the file from it", dir)
	}
	if err != nil {
		return fmt.Errorf("open the data folder: %w", err)
	}
	st := s.Status()
	if file == currentFile {
		file = st.End.File
	}
	if shown != nil {
		watch := &watched{w: w, shown: shown, name: file}
		for _, f := range st.Files {
			if f.Name == file {
				watch.size = f.Size
			}
		}
		w = watch
	}
	return errors.Join(s.Export(ctx, file, w), s.Close())
}

// writeNew writes a file that must not exist, durably; it appears whole or not at
// all.
func writeNew(name string, write func(io.Writer) error) (size int64, err error) {
	if _, err := os.Lstat(name); err == nil {
		return 0, fmt.Errorf("%s is there already: remove it, or choose another name", name)
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".part-*")
	if err != nil {
		return 0, err
	}
	defer func() {
		_ = f.Close()
		_ = os.Remove(f.Name()) // gone if it was renamed
	}()
	b := bufio.NewWriterSize(f, 1<<20)
	if err := write(b); err != nil {
		return 0, err
	}
	if err := errors.Join(b.Flush(), f.Sync()); err != nil {
		return 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	// Link, not rename: a file that came up meanwhile stays.
	if err := os.Link(f.Name(), name); errors.Is(err, os.ErrExist) {
		return 0, fmt.Errorf("%s is there already: remove it, or choose another name", name)
	} else if err != nil { // not every filesystem has links
		if err := os.Rename(f.Name(), name); err != nil {
			return 0, err
		}
	}
	return info.Size(), (vfs.OS{}).SyncDir(filepath.Dir(name))
}
