package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"kingbus/internal/peer"
)

// callTime bounds one question to another node.
const callTime = 30 * time.Second

// question is what a node asks another one to do.
type question struct {
	Do      string `json:"do"` // add, promote, remove, transfer, digest, snapshot, ask
	Name    string `json:"name,omitempty"`
	Address string `json:"address,omitempty"`
	From    uint64 `json:"from,omitempty"`
	To      uint64 `json:"to,omitempty"`
	// Body is what the user of the cluster asks.
	Body json.RawMessage `json:"body,omitempty"`
}

type reply struct {
	Error   string   `json:"error,omitempty"`
	Code    string   `json:"code,omitempty"` // of an error that callers tell apart
	Digests []Digest `json:"digests,omitempty"`
	Entry   uint64   `json:"entry,omitempty"` // the last that is digested
	First   uint64   `json:"first,omitempty"` // of the log
	// Snapshot is that of a leader, in the form of a checkpoint, and Term its term.
	Snapshot []byte `json:"snapshot,omitempty"`
	Term     uint64 `json:"term,omitempty"`
	// Body is what the user of the cluster answers.
	Body json.RawMessage `json:"body,omitempty"`
}

// Errors that cross the wire, by their codes.
var coded = map[string]error{
	"no-leader": ErrNoLeader, "no-member": ErrNoMember, "name-taken": ErrNameTaken, "behind": ErrBehind,
	"gone": errGone, "other-cluster": ErrOtherCluster, "last-voter": ErrLastVoter, "closed": ErrClosed, "format": ErrFormat, "dropped": ErrDropped, "deposed": ErrDeposed, "unsafe": ErrUnsafe,
}

// remoteError is an error of another node.
type remoteError struct {
	text string
	is   error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.is }

// serveCall answers one question. One without a question is a probe, for which
// the hello was the answer.
func (n *Node) serveCall(ctx context.Context, c *peer.Conn, from uint64) error {
	c.SetReadTimeout(callTime)
	c.SetWriteTimeout(callTime)
	b, err := c.ReadFrame()
	if err != nil {
		return nil
	}
	var q question
	if err := json.Unmarshal(b, &q); err != nil {
		return fmt.Errorf("question: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	var answer reply
	if _, member := n.group().byID(from); q.Do == "ask" && !member {
		err = ErrNoMember
		if n.Leading() == nil {
			err = ErrDropped // perhaps this node does not know of the group yet, which has just begun
		}
	} else {
		answer, err = n.answer(ctx, q)
	}
	if err != nil {
		answer.Error = err.Error()
		for code, is := range coded {
			if errors.Is(err, is) {
				answer.Code = code
			}
		}
	}
	if b, err = json.Marshal(answer); err != nil {
		return err
	}
	return c.WriteFrame(b)
}

func (n *Node) answer(ctx context.Context, q question) (reply, error) {
	switch q.Do {
	case "add":
		return reply{}, n.add(ctx, q.Name, q.Address)
	case "promote":
		return reply{}, n.promote(ctx, q.Name)
	case "remove":
		return reply{}, n.remove(ctx, q.Name)
	case "transfer":
		return reply{}, n.transfer(ctx, q.Name)
	case "snapshot":
		data, term, err := n.newSnapshot(ctx)
		return reply{Snapshot: data, Term: term}, err
	case "digest":
		digests, last, err := n.digests(ctx, q.From, q.To)
		return reply{Digests: digests, Entry: last, First: n.segments.FirstIndex()}, err
	case "ask":
		if n.cfg.Answer == nil {
			break
		}
		if n.Leading() == nil {
			return reply{}, ErrDropped
		}
		b, err := n.cfg.Answer(ctx, q.Body)
		return reply{Body: b}, err
	}
	return reply{}, fmt.Errorf("node %s does not know how to %q: it runs an older kingbus", n.cfg.Name, q.Do)
}

// askNode asks one question of a node.
func (n *Node) askNode(ctx context.Context, m Member, q question) (reply, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	c, _, err := peer.Dial(ctx, n.peers.config, m.Address, n.hello(peer.KindCall, m.ID))
	if err != nil {
		return reply{}, fmt.Errorf("node %s: %w", m, err)
	}
	defer c.Close()
	c.CloseWith(ctx)
	b, err := json.Marshal(q)
	if err == nil {
		err = c.WriteFrame(b)
	}
	if err == nil {
		b, err = c.ReadFrame()
	}
	var answer reply
	if err == nil {
		err = json.Unmarshal(b, &answer)
	}
	if err != nil {
		return reply{}, fmt.Errorf("node %s: %w", m, errors.Join(err, ctx.Err()))
	}
	if answer.Error != "" {
		return answer, &remoteError{answer.Error, coded[answer.Code]}
	}
	return answer, nil
}

// probe asks who is at an address.
func (n *Node) probe(ctx context.Context, address string) (peer.Hello, error) {
	c, h, err := peer.Dial(ctx, n.peers.config, address, n.hello(peer.KindCall, 0))
	if err != nil {
		return peer.Hello{}, fmt.Errorf("ask who is at %s: %w", address, err)
	}
	return h, c.Close()
}
