package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/raft/v3/raftpb"

	"kingbus/internal/peer"
	"kingbus/internal/segment"
)

// The first byte of a frame between peers.
const (
	frameRaft   = 1 // raftpb.Message, protobuf; the payloads of its entries follow the frame
	frameReport = 2 // report, JSON
	frameHeard  = 3 // the answer to a report
)

const (
	// maxControl and maxData bound the messages that wait for a peer. What comes
	// beyond is dropped, as a network may; Raft sends it again.
	maxControl, maxData = 4096, 1024
	// dataPatience is how long a peer may take nothing of the entries: its disk may
	// be slow. If it is gone, the other connection shows that sooner.
	dataPatience = 30 * time.Second
)

// sender sends to one peer. Messages hold handles; payloads are put in when they
// go out, so a peer that is slow costs no memory.
type sender struct {
	p  *peers
	to Member

	control, data *outbox
	urgent        chan struct{} // a report has to go out now
	stop          context.CancelFunc

	mu     sync.Mutex
	broken error // why the last one ended or could not be made
}

func newSender(p *peers, to Member) *sender {
	return &sender{p: p, to: to, control: newOutbox(maxControl), data: newOutbox(maxData), urgent: make(chan struct{}, 1)}
}

// outbox is a queue that takes messages while there is a connection.
type outbox struct {
	queue *queue[*pb.Message]
	mu    sync.Mutex
	open  bool
	n     int // messages in queue
	most  int
}

func newOutbox(most int) *outbox {
	return &outbox{queue: newQueue[*pb.Message](newSignal()), most: most}
}

// put returns false if the message was dropped.
func (o *outbox) put(m *pb.Message) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.open || o.n >= o.most {
		return false
	}
	o.n++
	o.queue.push(m)
	return true
}

func (o *outbox) len() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.n
}

func (o *outbox) drain() []*pb.Message {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.n = 0
	return o.queue.drain()
}

func (o *outbox) set(open bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.open = open
	if !open {
		o.n = 0
		o.queue.drain()
	}
}

func (s *sender) send(m *pb.Message) {
	switch m.GetType() {
	case pb.MsgApp, pb.MsgSnap:
		if !s.data.put(m) {
			s.p.n.unreachable(s.to.ID, m.GetType() == pb.MsgSnap)
		}
	default:
		s.control.put(m)
	}
}

// log is the node's, for lines about this peer: the entry is how far this node is.
func (s *sender) log() *slog.Logger {
	return s.p.n.log.With("peer", s.to.Name, "address", s.to.Address, "last_entry", s.p.n.segments.LastIndex())
}

// run keeps connections to the peer until ctx ends. Its error is one with which
// this node cannot go on.
func (s *sender) run(ctx context.Context) error {
	wait := redialMin
	var said time.Time
	for ctx.Err() == nil {
		began := time.Now()
		err := s.connect(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if fatal := s.p.n.refused(s.to.Name, err); fatal != nil {
			return fatal
		}
		if time.Since(said) >= sayEvery {
			said = time.Now()
			s.log().Info("no connection to a peer; trying on", "error", err)
		}
		if time.Since(began) > redialMax {
			wait, said = redialMin, time.Time{}
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, redialMax)
	}
	return nil
}

// connect makes both connections and sends until one of them ends.
func (s *sender) connect(ctx context.Context) error {
	n := s.p.n
	control, answer, err := peer.Dial(ctx, s.p.config, s.to.Address, n.hello(peer.KindControl, s.to.ID))
	if err == nil {
		var data *peer.Conn
		if data, _, err = peer.Dial(ctx, s.p.config, s.to.Address, n.hello(peer.KindData, s.to.ID)); err != nil {
			_ = control.Close()
		} else {
			s.log().Debug("connected to a peer", "peer_last_entry", answer.Last)
			err = s.talk(ctx, control, data)
		}
	}
	s.mu.Lock()
	s.broken = err
	s.mu.Unlock()
	return err
}

func (s *sender) talk(ctx context.Context, control, data *peer.Conn) error {
	g, ctx := errgroup.WithContext(ctx)
	closed := context.AfterFunc(ctx, func() { _, _ = control.Close(), data.Close() })
	defer func() {
		closed()
		_, _ = control.Close(), data.Close()
	}()
	s.mu.Lock()
	s.broken = nil
	s.mu.Unlock()
	s.control.set(true)
	s.data.set(true)
	defer s.p.n.unreachable(s.to.ID, true)
	defer s.control.set(false)
	defer s.data.set(false)
	answers := make(chan struct{})
	g.Go(func() error { return s.sendControl(ctx, control, answers) })
	g.Go(func() error { return s.readAnswers(ctx, control, answers) })
	g.Go(func() error { return s.sendData(ctx, data) })
	return g.Wait()
}

// sendControl sends small messages, and reports: those that cannot wait one by one, as
// the peer answers.
func (s *sender) sendControl(ctx context.Context, c *peer.Conn, answers <-chan struct{}) error {
	c.SetWriteTimeout(peerSilence)
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	var buf []byte
	unanswered := 0
	report := func() error {
		unanswered++
		b, err := json.Marshal(s.p.n.report())
		if err != nil {
			return err
		}
		return c.WriteFrame(append([]byte{frameReport}, b...))
	}
	if err := report(); err != nil {
		return err
	}
	for {
		urgent := s.urgent
		if unanswered > 0 {
			urgent = nil // what has changed meanwhile goes with the next one
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-answers:
			unanswered--
		case <-tick.C:
			if err := report(); err != nil {
				return err
			}
		case <-urgent:
			if err := report(); err != nil {
				return err
			}
		case <-s.control.queue.ready:
			for _, m := range s.control.drain() {
				var err error
				if buf, err = (proto.MarshalOptions{}).MarshalAppend(append(buf[:0], frameRaft), m); err != nil {
					return err
				}
				if err := c.WriteFrame(buf); err != nil {
					return err
				}
			}
		}
	}
}

// readAnswers notices a peer that is gone although its socket is not.
func (s *sender) readAnswers(ctx context.Context, c *peer.Conn, answers chan<- struct{}) error {
	c.SetReadTimeout(peerSilence)
	for {
		if _, err := c.ReadFrame(); err != nil {
			return fmt.Errorf("the peer no longer answers: %w", err)
		}
		select {
		case answers <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (s *sender) sendData(ctx context.Context, c *peer.Conn) error {
	c.SetWriteTimeout(dataPatience)
	var buf []byte
	load := loader{n: s.p.n}
	defer load.close()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.data.queue.ready:
		}
		for _, m := range s.data.drain() {
			payloads, held, err := load.payloads(m)
			if errors.Is(err, errOutside) { // the log has moved on: Raft will find out
				s.p.n.unreachable(s.to.ID, false)
				continue
			}
			if err != nil {
				s.p.n.damaged(err)
				return err
			}
			if buf, err = (proto.MarshalOptions{}).MarshalAppend(append(buf[:0], frameRaft), m); err != nil {
				return err
			}
			if err := c.WriteFrame(buf, payloads...); err != nil {
				return err
			}
			for _, s := range held {
				s.release()
			}
		}
	}
}

// errOutside: an entry is no longer in the window, or another one is in its place.
var errOutside = errors.New("the entry is not in the window")

// loader finds payloads for a peer: in memory, or on disk in the order of the log.
type loader struct {
	n    *Node
	disk *segment.Reader
	next uint64 // the entry that disk reads next
}

// Slots in held have to be released; if they are not, because of an error, their
// payloads are not used again, that is all.
func (l *loader) payloads(m *pb.Message) (out [][]byte, held []slot, err error) {
	for _, e := range m.GetEntries() {
		if e.GetType() != pb.EntryNormal || len(e.GetData()) == 0 {
			continue
		}
		s, ok := l.n.window.find(entryID{e.GetIndex(), e.GetTerm()})
		if !ok {
			return nil, nil, errOutside
		}
		p := s.payload
		if p != nil {
			held = append(held, s)
		} else if p, err = l.read(e, s.at); err != nil {
			return nil, nil, err
		}
		out = append(out, p)
	}
	return out, held, nil
}

func (l *loader) read(e *pb.Entry, at segment.Location) ([]byte, error) {
	if l.disk == nil || l.next != e.GetIndex() {
		l.close()
		r, err := l.n.segments.NewReader(at)
		if err != nil {
			return nil, l.lost(err)
		}
		l.disk = r
	}
	stored, _, err := l.disk.Next()
	if err == nil && (stored.Index != e.GetIndex() || stored.Term != e.GetTerm()) {
		err = errOutside
	}
	if err != nil {
		l.close()
		return nil, l.lost(err)
	}
	l.next = stored.Index + 1
	return append([]byte(nil), stored.Payload...), nil
}

// lost passes on damage; all else means that the log was cut meanwhile.
func (l *loader) lost(err error) error {
	var corrupt *segment.CorruptError
	if errors.As(err, &corrupt) {
		return err
	}
	return errOutside
}

func (l *loader) close() {
	if l.disk != nil {
		_ = l.disk.Close() // only gives buffers and a file back
		l.disk = nil
	}
}
