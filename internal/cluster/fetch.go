package cluster

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sort"
	"time"

	"kingbus/internal/peer"
	"kingbus/internal/segment"
)

// Fetching: a connection of its own, over which a node gets committed entries
// of another's log in bulk (docs/format/peer.md). The one who asks says what it
// has, the other chooses where to begin:
//
//	→ fetchRequest, JSON
//	← fetchAnswer, JSON
//	← frames of entries, until the one asked for; then an empty frame
//
// A frame of entries, little-endian, once for each entry; the payloads follow the
// frame, one behind the other:
//
//	off size field
//	  0    8 index
//	  8    8 term
//	 16    1 type
//	 17    1 zero
//	 18    2 length of the data
//	 20    4 length of the payload
//	 24    4 CRC32C of the payload
//	 28    . data
const fetchHeader = 28

type fetchRequest struct {
	// Last and LastTerm are of the last entry that the asker has on disk, Applied is
	// up to where its log is certain to be the group's.
	Last     uint64 `json:"last"`
	LastTerm uint64 `json:"last_term"`
	Applied  uint64 `json:"applied"`
	// To is the last entry that it wants. ToTerm is its term, where the asker knows it to be
	// committed, so that who has it may send all up to it without knowing that; 0: it does not.
	To     uint64 `json:"to"`
	ToTerm uint64 `json:"to_term,omitempty"`
	// Exactly: begin with the entry after Applied, or not at all.
	Exactly bool `json:"exactly,omitempty"`
	// Latest: the asker has lost what it had; only who leads with a majority may
	// answer, with all that is committed, whatever To is.
	Latest bool `json:"latest,omitempty"`
}

type fetchAnswer struct {
	// From is the first entry that follows. Anew: the asker's log is of no use, the
	// log begins with From, behind an entry of term PrevTerm.
	From     uint64 `json:"from"`
	Anew     bool   `json:"anew"`
	PrevTerm uint64 `json:"prev_term"`
	Bytes    uint64 `json:"bytes"` // about how many will follow
	// Error tells why nothing follows.
	Error string `json:"error,omitempty"`
}

const (
	// fetchFrame is about how many bytes of the log go into one frame.
	fetchFrame = 256 << 10
	// fetchBusy is how many bytes a second are sent while this node is writing its
	// log, so that commits do not wait for the disk behind the bulk.
	fetchBusy = 64 << 20
	// fetchPatience is how long a peer may be silent while it is asked.
	fetchPatience = 15 * time.Second
)

// serveFetch answers one request.
func (n *Node) serveFetch(ctx context.Context, c *peer.Conn, from uint64) error {
	c.SetReadTimeout(fetchPatience)
	c.SetWriteTimeout(fetchPatience)
	b, err := c.ReadFrame()
	if err != nil {
		return err
	}
	var req fetchRequest
	if err := json.Unmarshal(b, &req); err != nil {
		return fmt.Errorf("fetch request: %w", err)
	}
	if req.Latest {
		if req.To, err = n.latest(ctx, from); err != nil {
			b, _ := json.Marshal(fetchAnswer{Error: err.Error()}) // cannot fail
			return c.WriteFrame(b)
		}
	}
	answer := n.answerFetch(req)
	if b, err = json.Marshal(answer); err != nil {
		return err
	}
	if err := c.WriteFrame(b); err != nil || answer.Error != "" {
		return err
	}
	return n.sendEntries(ctx, c, answer.From, req.To)
}

// latest returns the entry up to which a peer that has lost a part of its log has to
// be filled up: all that is committed, for the peer does not know how much of that it
// had acknowledged. It fails where this node does not lead with a majority, which the
// peer is no part of.
func (n *Node) latest(ctx context.Context, from uint64) (uint64, error) {
	if n.Leading() == nil {
		return 0, errors.New("this node does not lead")
	}
	ctx, cancel := context.WithTimeout(ctx, fetchPatience/2)
	defer cancel()
	if err := n.CatchUp(ctx); err != nil {
		return 0, fmt.Errorf("this node has no majority: %w", err)
	}
	// What the peer has acknowledged in this term counts for Raft, though it may be
	// lost: the peer gets all of it, or nothing yet.
	var match uint64
	n.call(func() {
		if pr, ok := n.raw.Status().Progress[from]; ok {
			match = pr.Match
		}
	})
	applied := n.applied.Load()
	if applied < match {
		return 0, fmt.Errorf("entry %d, which the peer has acknowledged, is not applied here yet", match)
	}
	return applied, nil
}

// agrees tells whether this node's log has an entry of that index and term, and so is the same
// up to it as any other that has.
func (n *Node) agrees(index, term uint64) bool {
	own, err := n.segments.Term(index)
	return err == nil && own == term
}

// answerFetch decides where to begin.
func (n *Node) answerFetch(req fetchRequest) fetchAnswer {
	applied := n.applied.Load()
	if applied < req.To && !n.agrees(req.To, req.ToTerm) {
		return fetchAnswer{Error: fmt.Sprintf("this node has applied entry %d only", applied)}
	}
	if n.installing.Load() {
		return fetchAnswer{Error: "this node is fetching its own log at present"}
	}
	first := n.segments.FirstIndex()
	prev, prevTerm := n.segments.Prev()
	answer := fetchAnswer{From: req.Applied + 1}
	if term, err := n.segments.Term(req.Last); !req.Exactly && err == nil && term == req.LastTerm && req.Last <= applied && req.Last >= req.Applied {
		answer.From = req.Last + 1 // logs that agree in an entry agree in all before it
	}
	if answer.From < first {
		if req.Exactly {
			return fetchAnswer{Error: fmt.Sprintf("this node's log begins with entry %d", first)}
		}
		answer = fetchAnswer{From: prev + 1, Anew: true, PrevTerm: prevTerm}
	}
	answer.Bytes = uint64(max(0, n.segments.BytesAfter(answer.From-1)))
	return answer
}

// sendEntries sends a run of the log.
func (n *Node) sendEntries(ctx context.Context, c *peer.Conn, from, to uint64) error {
	if from > to {
		return c.WriteFrame(nil)
	}
	at, err := n.segments.Seek(from)
	if err != nil {
		return err
	}
	r, err := n.segments.NewReader(at)
	if err != nil {
		return err
	}
	defer r.Close()
	n.saver.hold(1) // nothing of it is dropped meanwhile
	defer n.saver.hold(-1)
	pace := pacer{n: n}
	var head []byte
	for next := from; next <= to; {
		head = head[:0]
		var payloads [][]byte
		size := 0
		for ; next <= to && size < fetchFrame; next++ {
			e, _, err := r.Next()
			if err == nil && e.Index != next {
				err = fmt.Errorf("found entry %d in its place", e.Index)
			}
			if err != nil {
				n.damaged(err)
				return fmt.Errorf("read entry %d for a peer: %w", next, err)
			}
			sum := crc32.Checksum(e.Payload, castagnoli)
			head = appendFetched(head, e, sum)
			// One copy: the next entry may move the reader's buffer.
			payloads = append(payloads, append([]byte(nil), e.Payload...))
			size += fetchHeader + len(e.Data) + len(e.Payload)
		}
		if err := c.WriteFrame(head, payloads...); err != nil {
			return err
		}
		if err := pace.wait(ctx, size); err != nil {
			return err
		}
	}
	return c.WriteFrame(nil)
}

func appendFetched(b []byte, e segment.Entry, sum uint32) []byte {
	b = binary.LittleEndian.AppendUint64(b, e.Index)
	b = binary.LittleEndian.AppendUint64(b, e.Term)
	b = append(b, e.Type, 0)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(e.Data)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(e.Payload)))
	b = binary.LittleEndian.AppendUint32(b, sum)
	return append(b, e.Data...)
}

// pacer slows the bulk down while this node appends to its log.
type pacer struct {
	n        *Node
	appended uint64    // entries of the log the last time
	since    time.Time // when it last was seen to grow
}

func (p *pacer) wait(ctx context.Context, n int) error {
	now := time.Now()
	if last := p.n.segments.LastIndex(); last != p.appended {
		if p.appended != 0 {
			p.since = now
		}
		p.appended = last
	}
	if p.since.IsZero() || now.Sub(p.since) > time.Second {
		return nil
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(time.Duration(n) * time.Second / fetchBusy):
		return nil
	}
}

// parseFetched reads a frame of entries; the payloads are still to come.
func parseFetched(b []byte) ([]segment.Entry, []uint32, error) {
	var entries []segment.Entry
	var lengths []uint32
	for len(b) > 0 {
		if len(b) < fetchHeader {
			return nil, nil, io.ErrUnexpectedEOF
		}
		dataLen, payloadLen := int(binary.LittleEndian.Uint16(b[18:])), binary.LittleEndian.Uint32(b[20:])
		if len(b) < fetchHeader+dataLen || payloadLen > MaxPayload {
			return nil, nil, fmt.Errorf("entry with %d bytes of data and %d of payload in a frame of %d", dataLen, payloadLen, len(b))
		}
		e := segment.Entry{
			Index: binary.LittleEndian.Uint64(b), Term: binary.LittleEndian.Uint64(b[8:]), Type: b[16],
			Data: append([]byte(nil), b[fetchHeader:fetchHeader+dataLen]...),
			Sum:  binary.LittleEndian.Uint32(b[24:]), Summed: true,
		}
		entries, lengths = append(entries, e), append(lengths, payloadLen)
		b = b[fetchHeader+dataLen:]
	}
	return entries, lengths, nil
}

// fetchOrder returns whom to ask: the leader first.
func (n *Node) fetchOrder(group membership) []Member {
	var order []Member
	leader := n.Leader()
	for _, m := range n.peers.known(group) {
		if m.ID == leader {
			order = append([]Member{m}, order...)
		} else {
			order = append(order, m)
		}
	}
	return order
}

// ask opens a fetch. The connection ends with ctx.
func (n *Node) ask(ctx context.Context, m Member, req fetchRequest) (*peer.Conn, fetchAnswer, error) {
	c, _, err := peer.Dial(ctx, n.peers.config, m.Address, n.hello(peer.KindFetch, m.ID))
	if err != nil {
		return nil, fetchAnswer{}, err
	}
	c.CloseWith(ctx)
	c.SetReadTimeout(fetchPatience)
	c.SetWriteTimeout(fetchPatience)
	b, err := json.Marshal(req)
	if err == nil {
		err = c.WriteFrame(b)
	}
	if err == nil {
		b, err = c.ReadFrame()
	}
	var answer fetchAnswer
	if err == nil {
		err = json.Unmarshal(b, &answer)
	}
	if err == nil && answer.Error != "" {
		err = errors.New(answer.Error)
	}
	if err != nil {
		_ = c.Close()
		return nil, fetchAnswer{}, err
	}
	return c, answer, nil
}

// readEntries reads one frame of entries with their payloads; none: the end.
func readEntries(c *peer.Conn, next uint64) ([]segment.Entry, error) {
	b, err := c.ReadFrame()
	if err != nil {
		return nil, err
	}
	entries, lengths, err := parseFetched(b)
	if err != nil {
		return nil, err
	}
	for i := range entries {
		e := &entries[i]
		if e.Index != next+uint64(i) {
			return nil, fmt.Errorf("entry %d came where %d is next", e.Index, next+uint64(i))
		}
		if lengths[i] == 0 {
			continue
		}
		e.Payload = make([]byte, lengths[i])
		if err := c.ReadPayload(e.Payload); err != nil {
			return nil, err
		}
		if crc32.Checksum(e.Payload, castagnoli) != e.Sum {
			return nil, fmt.Errorf("the checksum of entry %d is wrong", e.Index)
		}
	}
	return entries, nil
}

// fetch gets what the job lacks from a peer. An error that is no *fatalError means
// that another one may be asked.
func (i *installer) fetch(ctx context.Context, m Member, job checkpoint) error {
	n := i.n
	last := n.segments.LastIndex()
	term, err := n.segments.Term(last)
	if err != nil {
		return &fatalError{fmt.Errorf("the end of the log: %w", err)}
	}
	// Raft lets applying wait behind what is known to be committed.
	applied := n.applied.Load()
	committed, _ := n.hard.committed()
	req := fetchRequest{Last: last, LastTerm: term, Applied: max(applied, min(committed, last)), To: job.index, ToTerm: job.term}
	if i.replaced {
		req.Applied = last
	}
	c, answer, err := n.ask(ctx, m, req)
	if err != nil {
		return err
	}
	defer c.Close()
	i.total.Store(i.done.Load() + answer.Bytes)
	switch {
	case answer.Anew:
		needs, err := n.machine.Needs(job.state)
		if err != nil {
			return &fatalError{err}
		}
		if answer.From > job.index+1 || needs != 0 && answer.From > needs {
			return fmt.Errorf("entry %d: %w: the log of the peer begins with %d", needs, errGone, answer.From)
		}
		if err := i.replace(job, entryID{answer.From - 1, answer.PrevTerm}); err != nil {
			return &fatalError{err}
		}
	case answer.From > last+1 || answer.From <= req.Applied:
		return fmt.Errorf("it begins with entry %d, behind entry %d", answer.From, last)
	case !i.replaced && answer.From > applied+1:
		if err := i.applyOwn(ctx, applied+1, min(answer.From-1, job.index)); err != nil {
			return err
		}
	}
	return i.copy(ctx, c, answer.From, job.index)
}

// applyOwn applies entries that this node has, now that they are known to be committed.
func (i *installer) applyOwn(ctx context.Context, from, to uint64) error {
	i.n.hard.commitTo(to)
	err := i.n.hard.saveCommit()
	if err == nil {
		err = i.readBack(ctx, from, to)
	}
	if err != nil {
		return &fatalError{err}
	}
	return nil
}

// agreed counts the entries with which a run begins that this node has: it may have acknowledged
// them, so they stay, also where the end of its log is another one.
func (i *installer) agreed(entries []segment.Entry) int {
	log := i.n.segments
	last := log.LastIndex()
	n := sort.Search(len(entries), func(j int) bool { return entries[j].Index > last }) // so many are compared
	differs := func(j int) bool {
		term, err := log.Term(entries[j].Index)
		return err != nil || term != entries[j].Term
	}
	if n == 0 || !differs(n-1) { // then all before it agree; to look at each takes too long
		return n
	}
	return sort.Search(n, differs)
}

// copy takes entries in: append, sync, apply. What has come when the peer is lost
// is kept.
func (i *installer) copy(ctx context.Context, c *peer.Conn, next, to uint64) error {
	n := i.n
	var batch []fetched
	bytes := 0
	for next <= to {
		entries, err := readEntries(c, next)
		if err == nil && len(entries) == 0 {
			err = fmt.Errorf("the peer ended before entry %d", next)
		}
		if err != nil {
			return errors.Join(err, i.settle(batch))
		}
		if own := i.agreed(entries); own > 0 && !i.replaced {
			if err := i.applyOwn(ctx, next, next+uint64(own)-1); err != nil {
				return err
			}
			if entries, next = entries[own:], next+uint64(own); len(entries) == 0 {
				continue
			}
		}
		at, err := n.segments.Append(entries)
		if noSpace(err) {
			return errors.Join(err, i.settle(batch))
		}
		if err != nil {
			return &fatalError{fmt.Errorf("append fetched entries: %w", err)}
		}
		for j, e := range entries {
			batch = append(batch, fetched{e, at[j]})
			bytes += fetchHeader + len(e.Data) + len(e.Payload)
		}
		next += uint64(len(entries))
		if bytes >= installBatch {
			if err := i.settle(batch); err != nil {
				return err
			}
			i.done.Add(uint64(bytes))
			clear(batch)
			batch, bytes = batch[:0], 0
		}
	}
	i.done.Add(uint64(bytes))
	return i.settle(batch)
}

// settle syncs and applies fetched entries.
func (i *installer) settle(batch []fetched) error {
	if len(batch) == 0 {
		return nil
	}
	n := i.n
	if err := n.segments.Sync(); err != nil {
		return &fatalError{fmt.Errorf("sync log: %w", err)}
	}
	if !i.replaced { // what is told to be applied must be known to be committed at the next start
		n.hard.commitTo(batch[len(batch)-1].Index)
		if err := n.hard.saveCommit(); err != nil {
			return &fatalError{err}
		}
	}
	if err := i.apply(batch); err != nil {
		return &fatalError{err}
	}
	return nil
}
