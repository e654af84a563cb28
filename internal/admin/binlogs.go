package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"

	"kingbus/internal/gtid"
	"kingbus/internal/stream"
)

// Binlog is what the API needs of the stream beside its status; *stream.Stream is one.
type Binlog interface {
	// Export writes a file of the stream as a standard binlog file.
	Export(ctx context.Context, file string, w io.Writer) error
	PlanPurge(to string, before time.Time) (stream.PurgePlan, error)
	Purge(ctx context.Context, before string) error
}

// Binlogs are the files of the binlog, oldest first.
type Binlogs struct {
	Files []BinlogFile `json:"files"`
	// Bytes is the size of all of them together.
	Bytes uint64 `json:"bytes"`
	// Purged are the transactions of files that were there before.
	Purged gtid.Set `json:"gtid_purged"`
}

// BinlogFile is one of them.
type BinlogFile struct {
	Name string `json:"name"`
	// Size is what it has as MySQL's file, in bytes; if it is the current one, up to the last
	// committed transaction.
	Size uint64 `json:"size"`
	// FirstEvent and LastEvent are when its oldest and newest events were made, by the
	// source's clock.
	FirstEvent time.Time `json:"first_event,omitzero"`
	LastEvent  time.Time `json:"last_event,omitzero"`
	// Current: it is the one that is written.
	Current bool `json:"current"`
}

func (s *Server) binlogs(w http.ResponseWriter, _ *http.Request) {
	st := s.snapshot()
	out := Binlogs{Files: []BinlogFile{}, Bytes: st.Stream.Bytes, Purged: st.Stream.Purged}
	at := func(seconds uint32) (t time.Time) {
		if seconds != 0 {
			t = time.Unix(int64(seconds), 0).UTC()
		}
		return t
	}
	for i, f := range st.Stream.Files {
		out.Files = append(out.Files, BinlogFile{f.Name, f.Size, at(f.Created), at(f.Written), i == len(st.Stream.Files)-1})
	}
	s.json(w, http.StatusOK, out)
}

// Purge is the body of a request to remove binlog files: those before the file To, or those
// without an event of the time Before or later.
type Purge struct {
	To     string    `json:"to,omitempty"`
	Before time.Time `json:"before,omitzero"`
	// DryRun only tells what would be removed.
	DryRun bool `json:"dry_run,omitempty"`
}

// Purged is what was removed, on all nodes, or would be.
type Purged struct {
	Removed []string `json:"removed"`
	// Bytes is the size of the removed files together.
	Bytes uint64 `json:"bytes"`
	// Oldest is the oldest file that is left, "" if there are none.
	Oldest string `json:"oldest"`
	// HeldBack: more was asked for, but a connected replica still reads the oldest file.
	HeldBack bool `json:"held_back"`
}

// purge is PURGE BINARY LOGS.
func (s *Server) purge(ctx context.Context, _ *http.Request, body []byte) (answer any, what string, err error) {
	p, err := decode[Purge](body, "what to purge")
	if err != nil {
		return nil, "", err
	}
	if (p.To == "") == p.Before.IsZero() {
		return nil, "", fail(CodeBadRequest, `the body has to be {"to": FILE} or {"before": TIME}, a time as in 2026-01-31T00:00:00Z`)
	}
	plan, err := s.cfg.Binlog.PlanPurge(p.To, p.Before)
	if err != nil {
		return nil, "", err
	}
	out := Purged{Removed: []string{}, Oldest: plan.Keep, HeldBack: plan.HeldBack}
	for _, f := range plan.Remove {
		out.Removed = append(out.Removed, f.Name)
		out.Bytes += f.Size
	}
	if p.DryRun || len(plan.Remove) == 0 {
		return out, "", nil
	}
	return out, "remove the binlog files before " + plan.Keep, s.cfg.Binlog.Purge(ctx, plan.Keep)
}

// binlog sends a file. A failure behind the first byte breaks the connection
// off, so that the client cannot take a part for the whole.
func (s *Server) binlog(w http.ResponseWriter, r *http.Request) {
	select {
	case s.exports <- struct{}{}:
		defer func() { <-s.exports }()
	default:
		w.Header().Set("Retry-After", "10")
		s.fail(w, fail(CodeBusy, fmt.Sprintf("%d files are being sent already", maxExports)))
		return
	}
	name := r.PathValue("name")
	st := s.cfg.Status()
	if name == "current" && st.Stream.End.File != "" {
		name = st.Stream.End.File
	}
	found := false
	for _, f := range st.Stream.Files {
		found = found || f.Name == name
	}
	if !found {
		s.fail(w, fail(CodeNotFound, fmt.Sprintf("there is no binlog file %q here; %s", name, fileHint(st.Stream.Files))))
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": name}))
	w.Header().Set("Trailer", SizeTrailer)
	out := &patientWriter{w: w, control: http.NewResponseController(w)}
	err := s.cfg.Binlog.Export(r.Context(), name, out)
	switch {
	case err == nil:
		w.Header().Set(SizeTrailer, strconv.FormatInt(out.size, 10))
	case out.size == 0 && (errors.Is(err, stream.ErrNoFile) || errors.Is(err, stream.ErrNotYet)):
		w.Header().Del("Trailer")
		s.fail(w, err)
	default:
		if r.Context().Err() == nil {
			s.cfg.Log.Error("sending a binlog file failed", "file", name, "error", err)
		}
		panic(http.ErrAbortHandler) // net/http's own way to break a connection off
	}
}

// SizeTrailer is the HTTP trailer behind a binlog file: its size in bytes.
const SizeTrailer = "Kingbus-Size"

func fileHint(files []stream.File) string {
	switch n := len(files); n {
	case 0:
		return "there are none yet"
	case 1:
		return "there is only " + files[0].Name
	default:
		return fmt.Sprintf("there are %s to %s", files[0].Name, files[n-1].Name)
	}
}

// patientWriter gives the client time as long as it takes something.
type patientWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	size    int64
}

func (p *patientWriter) Write(b []byte) (int, error) {
	_ = p.control.SetWriteDeadline(time.Now().Add(stall)) // not every ResponseWriter of a test can
	n, err := p.w.Write(b)
	p.size += int64(n)
	return n, err
}
