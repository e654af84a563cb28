package mysqltest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"
)

// Session is one connection that lives on between statements: a mysql client as root over the socket, fed line by line.
// Transactions, variables and temporary tables stay, and a statement costs a fraction of what Exec costs. Its methods
// may be used from several goroutines, one statement runs at a time. After the connection was lost, or a context was
// cancelled while a statement ran, every call fails.
type Session struct {
	name string

	mu     sync.Mutex
	proc   *process
	in     *os.File // the client's standard input
	out    *os.File // its standard output and error, in one pipe so that their order is kept
	lines  *bufio.Reader
	broken error
}

// Session starts a client. The caller has to Close it.
func (i *Instance) Session(ctx context.Context) (*Session, error) {
	childIn, in, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("mysqltest: session on %s: %w", i.Name, err)
	}
	out, childOut, err := os.Pipe()
	if err != nil {
		childIn.Close()
		in.Close()
		return nil, fmt.Errorf("mysqltest: session on %s: %w", i.Name, err)
	}
	// --force: go on after an error; we see the error in the output.
	cmd := i.client(context.WithoutCancel(ctx), "--force", "--unbuffered", "--skip-reconnect")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = childIn, childOut, childOut
	proc, err := startProcess(cmd)
	childIn.Close()
	childOut.Close()
	if err != nil {
		in.Close()
		out.Close()
		return nil, fmt.Errorf("mysqltest: session on %s: %w", i.Name, err)
	}
	s := &Session{name: i.Name, proc: proc, in: in, out: out, lines: bufio.NewReader(out)}
	if err := s.Exec(ctx, "DO 0"); err != nil { // connected?
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// The client itself answers this command, with this line, so the end of a statement shows in whatever state the
// connection is (in an XA transaction, for instance, the server refuses even a SELECT).
const sessionMark = "delimiter\n"

var (
	sessionMarkRE = regexp.MustCompile(`^ERROR at line \d+: DELIMITER must be followed by `)
	// What the client cannot recover from: server gone, connection lost, packets out of order, killed, idle too long.
	fatalCodes = map[int]bool{2006: true, 2013: true, 2027: true, 2055: true, 3169: true, 4031: true}
)

// Exec runs one or more statements and returns the first error, an *SQLError if it came from the server; statements
// after one that failed run all the same. The client's own commands must not be among them.
func (s *Session) Exec(ctx context.Context, sql string) error {
	_, err := s.Query(ctx, sql)
	return err
}

// Query is Exec that returns the rows of all results, in the form of Instance.Query.
func (s *Session) Query(ctx context.Context, sql string) ([][]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		return nil, fmt.Errorf("%s: session: %w", s.name, s.broken)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%s: session: %w", s.name, err)
	}
	// A client that hangs is of no more use: killing it ends our reading and writing.
	unhook := context.AfterFunc(ctx, func() { s.proc.signal(os.Kill) })
	defer unhook()
	written := make(chan struct{}) // written aside, as the client may answer the first statements before it reads the last
	go func() {
		defer close(written)
		_, _ = s.in.WriteString(sql + "\n;\n" + sessionMark) // fails only if the client ended, which reading shows
	}()
	defer func() { <-written }()

	var rows strings.Builder
	var failed error
	for {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			if s.broken = ctx.Err(); s.broken == nil {
				s.broken = fmt.Errorf("the client ended: %w", err)
			}
			return nil, fmt.Errorf("%s: session: %s: %w", s.name, abbreviate(sql), errors.Join(failed, s.broken))
		}
		if sessionMarkRE.MatchString(line) {
			break
		}
		var serr *SQLError
		switch err := parseSQLError(strings.TrimSuffix(line, "\n")); {
		case err == nil:
			rows.WriteString(line)
		case failed == nil:
			failed = err
			if errors.As(err, &serr) && fatalCodes[serr.Code] {
				s.broken = err
			}
		}
	}
	if failed != nil {
		return nil, fmt.Errorf("%s: session: %s: %w", s.name, abbreviate(sql), failed)
	}
	return parseBatch(rows.String()), nil
}

// Close ends the client; an open transaction is rolled back. It is idempotent.
func (s *Session) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.in == nil {
		return nil
	}
	s.in.Close()
	timer := time.AfterFunc(10*time.Second, func() { s.proc.signal(os.Kill) })
	<-s.proc.done // how it ended does not matter: with --force it fails if any statement failed
	timer.Stop()
	s.out.Close()
	s.in = nil
	if s.broken == nil {
		s.broken = os.ErrClosed
	}
	return nil
}
