package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/raft/v3/raftpb"

	"kingbus/internal/peer"
)

// maxMessage bounds the payloads of one message of a peer, in bytes.
const maxMessage = 4 * MaxPayload

// readControl takes what is small: votes, heartbeats, answers, reports.
func (p *peers) readControl(c *peer.Conn, h peer.Hello) error {
	c.SetReadTimeout(peerSilence)
	c.SetWriteTimeout(peerSilence)
	for {
		b, err := c.ReadFrame()
		if err != nil {
			return err
		}
		if len(b) == 0 {
			return errors.New("an empty frame")
		}
		if p.n.group().wasRemoved(h.From) {
			return ErrRemoved // it hears so when it calls again
		}
		switch b[0] {
		case frameReport:
			var r report
			if err := json.Unmarshal(b[1:], &r); err != nil {
				return fmt.Errorf("report: %w", err)
			}
			p.takeReport(h.From, r)
			if err := c.WriteFrame([]byte{frameHeard}); err != nil {
				return err
			}
		case frameRaft:
			m, err := p.parse(b[1:], h)
			if err != nil {
				return err
			}
			if t := m.GetType(); t == pb.MsgApp || t == pb.MsgSnap {
				return fmt.Errorf("%s where only small messages go", t)
			}
			p.n.inbox.put(incoming{m: m})
			p.n.drive()
		default:
			return fmt.Errorf("a frame of kind %d", b[0])
		}
	}
}

// readData takes entries with their payloads, and snapshots.
func (p *peers) readData(ctx context.Context, c *peer.Conn, h peer.Hello) error {
	for {
		b, err := c.ReadFrame()
		if err != nil {
			return err
		}
		if len(b) == 0 || b[0] != frameRaft {
			return errors.New("a frame of another kind than messages")
		}
		m, err := p.parse(b[1:], h)
		if err != nil {
			return err
		}
		if t := m.GetType(); t != pb.MsgApp && t != pb.MsgSnap {
			return fmt.Errorf("%s where entries and snapshots go", t)
		}
		in, err := p.readPayloads(ctx, c, m)
		if err != nil {
			return err
		}
		if p.n.deaf.Load() && m.GetType() == pb.MsgApp {
			p.n.intake.release(in.bytes)
			continue
		}
		p.n.inbox.put(in)
		p.n.drive()
	}
}

func (p *peers) readPayloads(ctx context.Context, c *peer.Conn, m *pb.Message) (incoming, error) {
	in := incoming{m: m}
	var handles []handle
	for _, e := range m.GetEntries() {
		if e.GetType() != pb.EntryNormal || len(e.GetData()) == 0 {
			continue
		}
		h, err := decodeHandle(e.GetData())
		if err != nil {
			return in, fmt.Errorf("entry %d: %w", e.GetIndex(), err)
		}
		if h.length == 0 || h.length > MaxPayload {
			return in, fmt.Errorf("entry %d has a payload of %d bytes", e.GetIndex(), h.length)
		}
		handles = append(handles, h)
		in.bytes += int(h.length)
	}
	if in.bytes > maxMessage {
		return in, fmt.Errorf("a message with %d bytes of payload", in.bytes)
	}
	ctx, cancel := context.WithTimeout(ctx, dataPatience) // the peer is gone by then, or calls again
	defer cancel()
	if err := p.n.intake.reserve(ctx, in.bytes); err != nil {
		return in, err
	}
	in.payloads = make(map[handle][]byte, len(handles))
	for _, h := range handles {
		b := p.n.cfg.Buffer(int(h.length))
		err := c.ReadPayload(b)
		if err == nil && crc32.Checksum(b, castagnoli) != h.crc {
			err = errors.New("the checksum of a payload is wrong")
		}
		if err != nil {
			p.n.intake.release(in.bytes)
			return in, err
		}
		in.payloads[h] = b
	}
	return in, nil
}

// parse reads a message for Raft, and refuses what no peer may say: messages in
// the name of others, or of the kinds that a node says to itself.
func (p *peers) parse(b []byte, h peer.Hello) (*pb.Message, error) {
	m := &pb.Message{}
	if err := proto.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("message: %w", err)
	}
	if m.GetFrom() != h.From || m.GetTo() != p.n.id {
		return nil, fmt.Errorf("a message from %d to %d over a connection from %d to %d", m.GetFrom(), m.GetTo(), h.From, p.n.id)
	}
	switch m.GetType() {
	case pb.MsgReadIndex, pb.MsgReadIndexResp: // their context is an entry
		if len(m.GetEntries()) != 1 {
			return nil, fmt.Errorf("%s with %d entries", m.GetType(), len(m.GetEntries()))
		}
		return m, nil
	case pb.MsgApp, pb.MsgSnap:
		return m, nil
	case pb.MsgAppResp, pb.MsgVote, pb.MsgVoteResp, pb.MsgPreVote, pb.MsgPreVoteResp,
		pb.MsgHeartbeat, pb.MsgHeartbeatResp, pb.MsgTimeoutNow:
		if len(m.GetEntries()) > 0 {
			return nil, fmt.Errorf("%s with entries", m.GetType())
		}
		return m, nil
	}
	return nil, fmt.Errorf("a message of kind %s", m.GetType())
}
