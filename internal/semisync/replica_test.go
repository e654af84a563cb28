package semisync

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"kingbus/internal/hook"
	"kingbus/internal/wire"
)

// TestHandshake: what sources of all ages are asked, and told.
func TestHandshake(t *testing.T) {
	const set = "SET @rpl_semi_sync_replica = 1, @rpl_semi_sync_slave = 1"
	unknown := wire.Errorf(wire.ErUnknownSystemVariable, "Unknown system variable")
	yes := [][][]byte{{[]byte("1")}}
	for name, tc := range map[string]struct {
		mode          Mode
		newer, older  any // rows or an error
		asked         string
		offered, fail bool
	}{
		"9.7":                 {ModeAuto, yes, nil, "source, set", true, false},
		"8.0, old plugin":     {ModeAuto, unknown, yes, "source, master, set", true, false},
		"switched off":        {ModeAuto, [][][]byte{{[]byte("0")}}, nil, "source, set", true, false},
		"no plugin":           {ModeAuto, unknown, unknown, "source, master", false, false},
		"no rows":             {ModeAuto, [][][]byte(nil), unknown, "source, master", false, false},
		"no plugin, required": {ModeOn, unknown, unknown, "source, master", false, true},
		"off":                 {ModeOff, yes, yes, "", false, false},
		"another error":       {ModeAuto, errors.New("gone"), yes, "source", false, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := NewReplica(tc.mode, ChainSettings{}, files{}, slog.New(slog.DiscardHandler))
			ended := make(chan struct{})
			var asked []string
			l := &hook.Link{Source: "s:1", Ended: ended, Query: func(_ context.Context, sql string) ([][][]byte, error) {
				answer := any([][][]byte(nil))
				switch {
				case sql == set:
					asked = append(asked, "set")
				case strings.Contains(sql, "sync_source_enabled"):
					asked, answer = append(asked, "source"), tc.newer
				case strings.Contains(sql, "sync_master_enabled"):
					asked, answer = append(asked, "master"), tc.older
				default:
					t.Errorf("asked: %s", sql)
				}
				if err, is := answer.(error); is {
					return nil, err
				}
				return answer.([][][]byte), nil
			}, Open: func(context.Context) (hook.Session, error) { return nil, errors.New("not now") }}
			err := r.BeforeRequest(t.Context(), l)
			if got := strings.Join(asked, ", "); got != tc.asked || (err != nil) != tc.fail {
				t.Errorf("asked %q, %v; want %q", got, err, tc.asked)
			}
			p := hook.Packet{Head: []byte{magic, 1, 2, 3}}
			if err := r.AfterRead(l, &p); err != nil || (p.Skip == headerSize) != tc.offered || p.Restart != tc.offered {
				t.Errorf("a packet: %+v, %v", p, err)
			}
			bare := hook.Packet{Head: []byte{1, 2, 3}}
			if err := r.AfterRead(l, &bare); (err != nil) != tc.offered {
				t.Errorf("a packet without header: %v", err)
			}
			if s := r.Status(); s.Offered != tc.offered {
				t.Errorf("status: %+v", s)
			}
			close(ended)
			r.Stop(l)
			if s := r.Status().State; s != StateOff {
				t.Errorf("state after the end: %s", s)
			}
		})
	}
}

// TestAnswers: packets as the source expects them, one at a time, and none after the
// end.
func TestAnswers(t *testing.T) {
	r := NewReplica(ModeAuto, ChainSettings{}, files{}, slog.New(slog.DiscardHandler))
	ended, sent, told := make(chan struct{}), make(chan string, 10), make(chan hook.Position, 10)
	l := &hook.Link{
		Source: "s:1", Ended: ended, Durable: at("b.000001", 4),
		Query:    func(context.Context, string) ([][][]byte, error) { return [][][]byte{{[]byte("1")}}, nil },
		Open:     func(context.Context) (hook.Session, error) { return nil, errors.New("not now") },
		Send:     func(p []byte) error { sent <- string(p); return nil },
		Answered: func(at hook.Position) { told <- at },
	}
	if err := r.BeforeRequest(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	take := func(flag byte, pos, boundary uint64) {
		p := hook.Packet{Head: []byte{magic, flag, 0}}
		if err := r.AfterRead(l, &p); err != nil {
			t.Fatal(err)
		}
		r.AfterQueue(l, &hook.Queued{At: at("b.000001", pos), Boundary: at("b.000001", boundary), Asked: p.Asked})
	}
	take(0, 200, 200)
	take(1, 300, 300)
	select {
	case p := <-sent:
		t.Fatalf("%q was sent before it is durable", p)
	default:
	}
	r.AfterSync(at("b.000001", 300))
	if p := <-sent; p != "\xef\x2c\x01\x00\x00\x00\x00\x00\x00b.000001" {
		t.Errorf("the answer is %q", p)
	}
	if p := <-told; p != at("b.000001", 300) {
		t.Errorf("the observers are told of %v", p)
	}
	take(0, 400, 400)
	r.AfterSync(at("b.000001", 400)) // nobody asked
	take(3, 500, 400)                // only bit 0 counts; inside a transaction
	if p := <-sent; p != "\xef\xf4\x01\x00\x00\x00\x00\x00\x00b.000001" {
		t.Errorf("the answer is %q", p)
	}
	close(ended)
	r.Stop(l)
	r.AfterSync(at("b.000001", 600))
	if len(sent) > 0 {
		t.Errorf("%q was sent after the end", <-sent)
	}
	if s := r.Status(); s.Asked != 2 || s.Acknowledged != 2 || s.Last != at("b.000001", 500) {
		t.Errorf("status: %+v", s)
	}
}
