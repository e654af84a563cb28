package server

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"kingbus/internal/account"
	"kingbus/internal/gtid"
	"kingbus/internal/sql"
	"kingbus/internal/wire"
)

// session is one client that has logged in, as long as it is the same user. Its goroutine owns
// everything but mu.
type session struct {
	server     *Server
	ws         *wire.Session
	pc         *patientConn
	log        *slog.Logger
	sql        *sql.Session
	statements statements
	db         string
	since      time.Time
	ctx        context.Context // of the statement that runs
	next       *session        // that of the user to whom the client has changed

	mu struct {
		sync.Mutex
		command  string // for SHOW PROCESSLIST: "Sleep", "Query", "Binlog Dump" …
		changed  time.Time
		info     string // the statement that runs
		closing  bool   // the server shuts down, or the session was killed
		reg      *registration
		dump     *dumpRequest            // not nil while it dumps
		uuid     string                  // of the replica, set with dump
		stop     context.CancelCauseFunc // ends the dump
		waiting  context.CancelCauseFunc // ends a statement that waits for something
		sent     progress
		dumpFrom time.Time
		period   time.Duration // of heartbeats
	}
}

// open makes the session of a login that is right, before its client hears so: it may be refused yet.
func (s *Server) open(pc *patientConn, ws *wire.Session) error {
	c := &session{server: s, ws: ws, pc: pc, since: s.cfg.Now()}
	c.log = s.log.With("session", ws.ID, "user", ws.User, "from", pc.RemoteAddr().String())
	c.sql = sql.NewSession(c, s.variables())
	c.statements.all = &s.prepared
	c.setState("Sleep", "")
	if err := c.sql.SetCharset(ws.Collation); err != nil {
		return asWireError(err)
	}
	if ws.Database != "" {
		if err := c.use(ws.Database); err != nil {
			return err
		}
	}
	pc.opened = c
	return nil
}

// run answers commands until the client leaves, breaks the protocol, or ctx is
// done.
func (c *session) run(ctx context.Context) {
	defer c.statements.forget()
	defer c.sql.Reset()
	c.ws.SetTimeouts(c.server.cfg.IdleTimeout, 0)
	stop := context.AfterFunc(ctx, c.interrupt)
	defer stop()
	for {
		c.setState("Sleep", "")
		cmd, payload, err := c.ws.ReadCommand(c.server.cfg.MaxPacket)
		if err != nil {
			c.readFailed(err)
			return
		}
		again, err := c.command(ctx, cmd, payload)
		if err == nil && again {
			err = c.ws.Flush()
		}
		if err != nil {
			c.log.Debug("session ends", "error", err)
		}
		if err != nil || !again {
			return
		}
	}
}

// readFailed says what MySQL says where the client may still listen.
func (c *session) readFailed(err error) {
	var large *wire.TooLargeError
	var answer *wire.Error
	switch {
	case err == io.EOF, errors.Is(err, net.ErrClosed):
		return
	case errors.As(err, &large):
		answer = wire.TooLarge()
	case errors.Is(err, os.ErrDeadlineExceeded):
		answer = wire.Errorf(wire.ErClientInteractionTimeout, "The client was disconnected by the server because of inactivity. See wait_timeout and interactive_timeout for configuring this behavior.")
	case errors.Is(err, wire.ErrMalformed):
		answer = errMalformedPacket
	}
	c.log.Debug("session ends", "error", err)
	if answer != nil && c.ws.WriteError(answer) == nil {
		c.pc.finishWithin(lastWords)
		_ = c.ws.Flush() // the session ends either way
	}
}

// interrupt ends the session from outside: at once, but for a dump, which is
// about to notice and has something to say.
func (c *session) interrupt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.closing = true
	if c.mu.dump != nil {
		c.pc.finishWithin(lastWords)
		return
	}
	_ = c.ws.Close()
}

// kill is KILL from another session. MySQL ends a killed dump without a word,
// and one whose query was killed with EOF.
func (c *session) kill(query bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.mu.stop != nil && query:
		c.mu.stop(errKillQuery)
	case c.mu.stop != nil:
		c.mu.stop(errKilled)
		_ = c.ws.Close()
	default:
		if c.mu.waiting != nil {
			c.mu.waiting(errQueryInterrupted)
		}
		if !query {
			c.mu.closing = true
			_ = c.ws.Close()
		}
	}
}

// endDump ends the dump, if there is one; its client hears the cause.
func (c *session) endDump(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.stop != nil {
		c.mu.stop(cause)
		c.pc.finishWithin(lastWords)
	}
}

func (c *session) setState(command, info string) {
	now := c.server.cfg.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.command, c.mu.info, c.mu.changed = command, info, now
}

// command answers one command; again is false if the session ends with it. The
// error is that of the connection.
func (c *session) command(ctx context.Context, cmd byte, payload []byte) (again bool, err error) {
	switch cmd {
	case wire.ComQuit:
		return false, nil
	case wire.ComPing:
		return true, c.ws.WriteOK(wire.OK{Status: wire.StatusAutocommit})
	case wire.ComQuery:
		return c.guarded(func() error { return c.query(ctx, string(payload)) })
	case wire.ComInitDB:
		return true, c.answer(c.use(string(payload)))
	case wire.ComFieldList:
		table := fileName(payload)
		return true, c.ws.WriteError(wire.Errorf(wire.ErNoSuchTable, "Table '%s.%s' doesn't exist", c.db, clip(table, 64)))
	case wire.ComStatistics:
		return true, c.ws.WritePacket([]byte(c.server.statistics()))
	case wire.ComSetOption:
		if len(payload) != 2 || binary.LittleEndian.Uint16(payload) > 1 {
			return true, c.ws.WriteError(wire.Errorf(wire.ErUnknownCom, "Unknown command"))
		}
		return true, c.ws.WriteEOF(wire.StatusAutocommit, 0)
	case wire.ComProcessKill:
		if len(payload) != 4 {
			return true, c.ws.WriteError(errMalformedPacket)
		}
		return true, c.answer(c.killOther(uint64(binary.LittleEndian.Uint32(payload)), false))
	case wire.ComResetConnection:
		c.sql.Reset()
		c.statements.forget()
		return true, c.ws.WriteOK(wire.OK{Status: wire.StatusAutocommit})
	case wire.ComChangeUser:
		c.next = c.changeUser(ctx, payload)
		return false, nil
	case wire.ComStmtPrepare:
		return c.guarded(func() error { return c.prepare(payload) })
	case wire.ComStmtExecute:
		return c.guarded(func() error { return c.executePrepared(ctx, payload) })
	case wire.ComStmtSendLongData:
		c.statements.longData(payload)
		return true, nil
	case wire.ComStmtClose:
		c.statements.close(payload)
		return true, nil
	case wire.ComStmtReset:
		return true, c.resetStatement(payload)
	case wire.ComStmtFetch:
		return true, c.fetch(payload)
	case wire.ComRegisterReplica:
		if err := c.may(account.ReplicationSlave); err != nil {
			return true, c.answer(err)
		}
		reg, refusal := parseRegister(payload)
		if refusal != nil {
			return true, c.ws.WriteError(refusal)
		}
		c.mu.Lock()
		c.mu.reg = &reg
		c.mu.Unlock()
		return true, c.ws.WriteOK(wire.OK{Status: wire.StatusAutocommit})
	case wire.ComBinlogDump:
		req, refusal := parseDump(payload)
		return c.dumpOrRefuse(ctx, req, refusal)
	case wire.ComBinlogDumpGTID:
		req, refusal := parseDumpGTID(payload)
		return c.dumpOrRefuse(ctx, req, refusal)
	}
	return true, c.ws.WriteError(wire.Errorf(wire.ErUnknownCom, "Unknown command"))
}

// changeUser is COM_CHANGE_USER: a login as the first one, and what the session was is over. Only who
// has registered as a replica still is one. nil: it was refused, and the connection ends.
func (c *session) changeUser(ctx context.Context, payload []byte) *session {
	c.setState("Change user", "")
	s, e := c.server, c.pc.entrant
	s.door.again(e)
	c.pc.checking = false
	_, err := s.acceptor.ChangeUser(ctx, c.ws, payload)
	s.door.leave(e, c.pc.checking)
	if err != nil {
		s.loginFailed(ctx, c.pc, err)
		return nil
	}
	next := c.pc.opened
	next.statements.last = c.statements.last
	c.mu.Lock()
	next.mu.reg = c.mu.reg
	c.mu.Unlock()
	return next
}

// guarded runs what reads and evaluates a client's text. A panic there is a bug of ours, and ends
// the session: not the node, which anybody with an account could end then.
func (c *session) guarded(run func() error) (again bool, err error) {
	defer func() {
		if p := recover(); p != nil {
			c.log.Error("a statement has found a bug in kingbus; please report this line", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			again, err = false, errors.Join(c.answer(wire.Errorf(wire.ErUnknown, "kingbus: this statement has found a bug, and ends the session; the log has more of it")), c.ws.Flush())
		}
	}()
	return true, run()
}

// dumpOrRefuse: whatever becomes of a dump, the connection ends with it.
func (c *session) dumpOrRefuse(ctx context.Context, req dumpRequest, refusal *wire.Error) (bool, error) {
	if err := c.may(account.ReplicationSlave); refusal == nil && err != nil {
		return true, c.answer(err)
	}
	if refusal == nil {
		c.dump(ctx, req)
		return false, nil
	}
	if err := c.ws.WriteError(refusal); err != nil {
		return false, err
	}
	return false, c.ws.Flush()
}

// answer writes OK or the error.
func (c *session) answer(err error) error {
	if err == nil {
		return c.ws.WriteOK(wire.OK{Status: wire.StatusAutocommit})
	}
	return c.ws.WriteError(asWireError(err))
}

// record notes how a statement ended as the client is told, for SHOW WARNINGS.
func (c *session) record(err error) {
	if err != nil {
		w := asWireError(err)
		err = &sql.Error{Code: w.Code, State: w.State, Message: w.Message}
	}
	c.sql.Record(err)
}

func asWireError(err error) *wire.Error {
	var w *wire.Error
	var q *sql.Error
	switch {
	case errors.As(err, &w):
		return w
	case errors.As(err, &q):
		return &wire.Error{Code: q.Code, State: q.State, Message: q.Message}
	}
	return wire.Errorf(wire.ErUnknown, "kingbus: %v", err)
}

// use changes the default database; there are only those that every server has.
func (c *session) use(name string) error {
	if strings.EqualFold(name, databases[0]) { // MySQL's one name that is the same in any case
		name = databases[0]
	}
	switch {
	case slices.Contains(databases[:], name):
		c.db = name
		return nil
	case c.server.cfg.Users != nil && c.may(account.Super) != nil: // who may not see what there is
		return c.noDatabase(clip(name, 64))
	}
	return wire.Errorf(wire.ErBadDB, "Unknown database '%s'", clip(name, 64))
}

func clip(s string, n int) string { return s[:min(len(s), n)] }

// killOther is KILL and COM_PROCESS_KILL.
func (c *session) killOther(id uint64, query bool) error {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	other := c.server.mu.sessions[uint32(id)]
	if id != uint64(uint32(id)) || other == nil {
		return wire.Errorf(wire.ErNoSuchThread, "Unknown thread id: %d", id)
	}
	if other.ws.User != c.ws.User && (c.server.cfg.Users == nil || c.may(account.Super) != nil) {
		return wire.Errorf(wire.ErKillDenied, "You are not owner of thread %d", id)
	}
	if other == c && !query {
		return wire.Errorf(wire.ErQueryInterrupted, "Query execution was interrupted")
	}
	other.kill(query)
	return nil
}

// The methods that make a session the Env of its statements.

func (c *session) Now() time.Time       { return c.server.cfg.Now() }
func (c *session) ConnectionID() uint32 { return c.ws.ID }
func (c *session) User() string         { return c.ws.User + "@" + c.ws.Host }
func (c *session) CurrentUser() string  { return c.ws.User + "@" + c.accountHost() }
func (c *session) Database() string     { return c.db }
func (c *session) UUID() string {
	var u gtid.UUID
	_, _ = rand.Read(u[:])                      // never fails
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80 // version 4
	return u.String()
}

// maxUserVariables bounds the bytes of the user variables of all sessions together; more: error 1105.
const maxUserVariables = 64 << 20

// Hold implements sql.Env.
func (c *session) Hold(bytes int) bool {
	if bytes <= 0 {
		c.server.userVariables.Add(int64(bytes))
		return true
	}
	return take(&c.server.userVariables, bytes, maxUserVariables)
}

var errQueryInterrupted = wire.Errorf(wire.ErQueryInterrupted, "Query execution was interrupted")

// lookAgain is how long a waiting statement leaves the stream alone.
const lookAgain = 2 * time.Millisecond

// patience is how often a statement that waits looks whether its client is still there.
const patience = time.Second

func (c *session) WaitExecuted(set gtid.Set, timeout time.Duration) (bool, error) {
	ctx, cancel := context.WithCancelCause(c.ctx)
	defer cancel(nil)
	c.mu.Lock()
	c.mu.waiting = cancel
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.mu.waiting = nil
		c.mu.Unlock()
	}()
	var late <-chan time.Time
	if timeout > 0 {
		t := time.NewTimer(timeout)
		defer t.Stop()
		late = t.C
	}
	look := time.NewTicker(patience)
	defer look.Stop()
	s := c.server.cfg.Stream
	for {
		changed := s.Changed()
		if s.HasExecuted(set) {
			return true, nil
		}
		select {
		case <-changed:
			// Not at each of many transactions: all who wait look at the same set.
			select {
			case <-time.After(lookAgain):
			case <-ctx.Done():
			}
		case <-late:
			return false, nil
		case <-ctx.Done():
			if err := context.Cause(ctx); err == errQueryInterrupted {
				return false, err
			}
			return false, wire.Errorf(wire.ErServerShutdown, "Server shutdown in progress")
		case <-look.C:
			if c.ws.Ready() { // clients say nothing until they have the answer: it is gone
				return false, errQueryInterrupted
			}
		}
	}
}

// eitherVariable is a user variable that has an old name too; MySQL looks at the
// new one first.
func (c *session) eitherVariable(name, old string) sql.Value {
	if v := c.sql.UserVariable(name); !v.IsNull() {
		return v
	}
	return c.sql.UserVariable(old)
}

// replicaUUID is what the client calls itself, "" if it does not.
func (c *session) replicaUUID() string {
	return clip(c.eitherVariable("replica_uuid", "slave_uuid").Text(), 36)
}

// statistics is the answer to COM_STATISTICS.
func (s *Server) statistics() string {
	up := max(1, int(s.cfg.Now().Sub(s.started).Seconds()))
	n := s.Counters()
	return fmt.Sprintf("Uptime: %d  Threads: %d  Questions: %d  Slow queries: 0  Opens: 0  Flush tables: 0  Open tables: 0  Queries per second avg: %.3f",
		up, n.Open, n.Queries, float64(n.Queries)/float64(up))
}
