package cluster

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"hash/crc32"
	"reflect"
	"testing"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"kingbus/internal/peer"
	"kingbus/internal/segment"
)

func testGroup() membership {
	g := founded([]Member{{ID: 3, Name: "n1", Address: "a:1"}, {ID: 5, Name: "n2", Address: "b:1"}}, 1)
	g, err := g.apply(&pb.ConfChangeV2{Changes: []*pb.ConfChangeSingle{{Type: pb.ConfChangeAddLearnerNode.Enum(), NodeId: new(uint64(9))}}},
		change{Member: Member{Name: "n3", Address: "c:1"}})
	if err != nil {
		panic(err)
	}
	g.removed = []Member{{ID: 7, Name: "old", Address: "d:1"}}
	return g
}

// TestCheckpointVersions holds version 2 against its bytes, and reads version 1.
func TestCheckpointVersions(t *testing.T) {
	c := checkpoint{index: 0x0102, term: 0x03, group: testGroup(), state: []byte("state")}
	b, err := c.encode()
	if err != nil {
		t.Fatal(err)
	}
	members := `{"voters":[3,5],"learners":[9],"members":[{"raft_id":"3","name":"n1","address":"a:1"},{"raft_id":"5","name":"n2","address":"b:1"},` +
		`{"raft_id":"9","name":"n3","address":"c:1","learner":true}],"removed":[{"raft_id":"7","name":"old","address":"d:1"}],"format":1}`
	head := "6b62636865636b02" + "0201000000000000" + "0300000000000000" + hex.EncodeToString(binary.LittleEndian.AppendUint32(nil, uint32(len(members)))) + "05000000"
	if want := head + hex.EncodeToString([]byte(members+"state")); hex.EncodeToString(b[:len(b)-4]) != want {
		t.Errorf("checkpoint\n%s, want\n%s", hex.EncodeToString(b), want)
	}
	back, err := decodeCheckpoint(b)
	if err != nil || !reflect.DeepEqual(back.group.members, c.group.members) || !reflect.DeepEqual(back.group.removed, c.group.removed) {
		t.Errorf("%+v, %v", back, err)
	}
	// As kingbus before clusters wrote it.
	conf, err := proto.Marshal(&pb.ConfState{Voters: []uint64{77}})
	if err != nil {
		t.Fatal(err)
	}
	old := append([]byte("kbcheck\x01"), make([]byte, 24)...)
	binary.LittleEndian.PutUint64(old[8:], 12)
	binary.LittleEndian.PutUint64(old[16:], 4)
	binary.LittleEndian.PutUint32(old[24:], uint32(len(conf)))
	binary.LittleEndian.PutUint32(old[28:], 3)
	old = append(append(old, conf...), "old"...)
	old = binary.LittleEndian.AppendUint32(old, crc32.Checksum(old, castagnoli))
	got, err := decodeCheckpoint(old)
	if err != nil || got.index != 12 || got.term != 4 || string(got.state) != "old" || !got.group.isVoter(77) || got.group.format != 1 {
		t.Errorf("version 1: %+v, %v", got, err)
	}
}

// TestChanges: what each change of the membership does, and what is refused.
func TestChanges(t *testing.T) {
	change1 := func(kind pb.ConfChangeType, id uint64) *pb.ConfChangeV2 {
		return &pb.ConfChangeV2{Changes: []*pb.ConfChangeSingle{{Type: kind.Enum(), NodeId: new(id)}}}
	}
	g := testGroup()
	for name, tc := range map[string]struct {
		cc   *pb.ConfChangeV2
		c    change
		fail bool
		ok   func(membership) bool
	}{
		"promote":              {change1(pb.ConfChangeAddNode, 9), change{}, false, func(g membership) bool { return g.isVoter(9) && !g.members[2].Learner }},
		"promote a stranger":   {change1(pb.ConfChangeAddNode, 10), change{}, true, nil},
		"add again":            {change1(pb.ConfChangeAddLearnerNode, 9), change{Member: Member{Name: "x"}}, true, nil},
		"add one that was":     {change1(pb.ConfChangeAddLearnerNode, 7), change{Member: Member{Name: "x"}}, true, nil},
		"add with a name":      {change1(pb.ConfChangeAddLearnerNode, 11), change{Member: Member{Name: "n1"}}, true, nil},
		"remove":               {change1(pb.ConfChangeRemoveNode, 5), change{}, false, func(g membership) bool { return !g.isVoter(5) && g.wasRemoved(5) && len(g.members) == 2 }},
		"remove a stranger":    {change1(pb.ConfChangeRemoveNode, 10), change{}, true, nil},
		"rename":               {change1(pb.ConfChangeUpdateNode, 5), change{Member: Member{Name: "new", Address: "e:1"}}, false, func(g membership) bool { m, _ := g.byID(5); return m.Name == "new" && g.isVoter(5) }},
		"take another's name":  {change1(pb.ConfChangeUpdateNode, 5), change{Member: Member{Name: "n1"}}, true, nil},
		"raise the format":     {change1(pb.ConfChangeUpdateNode, 3), change{Member: Member{Name: "n1"}, Format: 4}, false, func(g membership) bool { return g.format == 4 }},
		"never lower it":       {change1(pb.ConfChangeUpdateNode, 3), change{Member: Member{Name: "n1"}, Format: 0}, false, func(g membership) bool { return g.format == 1 }},
		"two at once":          {&pb.ConfChangeV2{Changes: append(change1(pb.ConfChangeRemoveNode, 5).Changes, change1(pb.ConfChangeRemoveNode, 3).Changes...)}, change{}, true, nil},
		"leave joint":          {&pb.ConfChangeV2{}, change{}, true, nil},
		"a kind from tomorrow": {change1(pb.ConfChangeType(9), 5), change{}, true, nil},
	} {
		got, err := g.apply(tc.cc, tc.c)
		if (err != nil) != tc.fail || err == nil && !tc.ok(got) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if err != nil && !reflect.DeepEqual(got.members, g.members) {
			t.Errorf("%s: refused, and changed something", name)
		}
	}
	last := alone(Member{ID: 1, Name: "n"}, 1)
	if _, err := last.apply(change1(pb.ConfChangeRemoveNode, 1), change{}); err == nil {
		t.Error("the last voter was removed")
	}
}

func FuzzDecodeMembership(f *testing.F) {
	b, err := testGroup().encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"voters":[1]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := decodeMembership(b)
		if err != nil {
			return
		}
		again, err := g.encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeMembership(again); err != nil {
			t.Fatalf("%s became %s: %v", b, again, err)
		}
	})
}

func FuzzDecodeChange(f *testing.F) {
	context, _ := json.Marshal(change{Request: 1, Member: Member{ID: 2, Name: "n"}})
	b, err := proto.Marshal(&pb.ConfChangeV2{Changes: []*pb.ConfChangeSingle{{Type: pb.ConfChangeAddNode.Enum(), NodeId: new(uint64(2))}}, Context: context})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		cc, c, err := decodeChange(&pb.Entry{Index: new(uint64(5)), Data: b})
		if err == nil {
			_, _ = testGroup().apply(cc, c) // never panics
		}
	})
}

func FuzzParseFetched(f *testing.F) {
	e := segment.Entry{Index: 5, Term: 2, Type: 0, Data: []byte("data"), Payload: []byte("payload")}
	f.Add(appendFetched(nil, e, 7))
	f.Add(appendFetched(appendFetched(nil, e, 7), segment.Entry{Index: 6}, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		entries, lengths, err := parseFetched(b)
		if err != nil {
			return
		}
		var again []byte
		for i, e := range entries {
			if lengths[i] > MaxPayload {
				t.Fatalf("a payload of %d bytes", lengths[i])
			}
			e.Payload = nil
			one := appendFetched(nil, e, e.Sum)
			binary.LittleEndian.PutUint32(one[20:], lengths[i])
			again = append(again, one...)
		}
		for at := 0; at < len(b); { // the reserved byte is not looked at
			b[at+17] = 0
			at += fetchHeader + int(binary.LittleEndian.Uint16(b[at+18:]))
		}
		if !bytes.Equal(again, b) {
			t.Fatalf("%x became %x", b, again)
		}
	})
}

func FuzzParseMessage(f *testing.F) {
	b, err := proto.Marshal(&pb.Message{Type: pb.MsgHeartbeat.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(uint64(3))})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	p := &peers{n: &Node{id: 1}}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := p.parse(b, peer.Hello{From: 2})
		if err == nil && (m.GetFrom() != 2 || m.GetTo() != 1 || m.GetType() == pb.MsgHup || m.GetType() == pb.MsgProp) {
			t.Fatalf("%v came in", m)
		}
	})
}
