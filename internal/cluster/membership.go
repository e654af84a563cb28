package cluster

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3/confchange"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"
)

// Member is one node of the group.
type Member struct {
	// ID is the Raft id, which belongs to a data folder.
	ID uint64 `json:"raft_id,string"`
	// Name and Address (host:port for peers) are the operator's, and may change.
	Name    string `json:"name"`
	Address string `json:"address"`
	// Learner members take part in nothing but copying.
	Learner bool `json:"learner,omitempty"`
}

// String returns "name (address)".
func (m Member) String() string {
	if m.Address == "" {
		return m.Name
	}
	return m.Name + " (" + m.Address + ")"
}

// membership is who belongs to the group, as the entries of the log that change
// it fold into it: the same on every node that has applied the same entries. It
// is a value: change returns another one.
type membership struct {
	conf    *pb.ConfState
	members []Member // by Raft id; Learner is what conf says
	// removed are members that were: their folders never come back.
	removed []Member
	// format is the version that the group writes, which every member knows.
	format uint16
}

// change is what an entry that changes the membership carries beside Raft's own
// part of it, as JSON in its context.
type change struct {
	// Request is a number by which the proposer knows its change again.
	Request uint64 `json:"request,string"`
	// Member is whom it is about, with name and address as they are from now on.
	Member Member `json:"member"`
	// Format raises the version that the group writes, if it is not 0.
	Format uint16 `json:"format,omitempty"`
}

var (
	// ErrNoMember is returned for a name that no member has.
	ErrNoMember = errors.New("no node of the cluster has that name")
	// ErrNameTaken is returned for a name that another member has.
	ErrNameTaken = errors.New("another node of the cluster has that name")
	// ErrLastVoter is returned for a change that would leave nobody who votes.
	ErrLastVoter = errors.New("it is the only voter: add another node before it goes")
)

// alone returns the membership of a group of one.
func alone(m Member, format uint16) membership { return founded([]Member{m}, format) }

// founded returns the membership with which a group begins.
func founded(members []Member, format uint16) membership {
	g := membership{conf: &pb.ConfState{}, members: slices.Clone(members), format: format}
	slices.SortFunc(g.members, byID)
	for _, m := range g.members {
		g.conf.Voters = append(g.conf.Voters, m.ID)
	}
	return g
}

func byID(a, b Member) int { return cmp.Compare(a.ID, b.ID) }

func (g membership) find(match func(Member) bool) (Member, bool) {
	if i := slices.IndexFunc(g.members, match); i >= 0 {
		return g.members[i], true
	}
	return Member{}, false
}

func (g membership) byID(id uint64) (Member, bool) {
	return g.find(func(m Member) bool { return m.ID == id })
}

func (g membership) byName(name string) (Member, bool) {
	return g.find(func(m Member) bool { return m.Name == name })
}

// wasRemoved tells whether the id is that of a member that was.
func (g membership) wasRemoved(id uint64) bool {
	return slices.ContainsFunc(g.removed, func(m Member) bool { return m.ID == id })
}

func (g membership) isVoter(id uint64) bool { return slices.Contains(g.conf.GetVoters(), id) }

// apply folds one entry. An error means that every node refuses the change, and
// says why; the membership stays as it was.
func (g membership) apply(cc *pb.ConfChangeV2, c change) (membership, error) {
	if len(cc.GetChanges()) != 1 {
		return g, fmt.Errorf("a change of %d nodes at once is not known to this kingbus", len(cc.GetChanges()))
	}
	single := cc.GetChanges()[0]
	id := single.GetNodeId()
	if id == 0 {
		return g, errors.New("a node without a Raft id")
	}
	old, is := g.byID(id)
	m := c.Member
	m.ID = id
	switch single.GetType() {
	case pb.ConfChangeAddLearnerNode:
		if is || g.wasRemoved(id) {
			return g, fmt.Errorf("node %d is or was a member: %w", id, errKnownID)
		}
	case pb.ConfChangeAddNode:
		if !is {
			return g, ErrNoMember
		}
		m = old
	case pb.ConfChangeRemoveNode:
		if !is {
			return g, ErrNoMember
		}
		if g.isVoter(id) && len(g.conf.GetVoters()) == 1 {
			return g, ErrLastVoter
		}
		m = old
	case pb.ConfChangeUpdateNode:
		if !is {
			return g, ErrNoMember
		}
	default:
		return g, fmt.Errorf("a change of kind %s is not known to this kingbus", single.GetType())
	}
	if other, taken := g.byName(m.Name); taken && other.ID != id {
		return g, fmt.Errorf("%s: %w", other, ErrNameTaken)
	}
	conf, err := changeConf(g.conf, single)
	if err != nil {
		return g, err
	}
	next := membership{conf: conf, format: max(g.format, c.Format), removed: g.removed}
	for _, other := range g.members {
		if other.ID != id {
			next.members = append(next.members, other)
		}
	}
	if single.GetType() == pb.ConfChangeRemoveNode {
		next.removed = append(slices.Clone(g.removed), old)
	} else {
		m.Learner = slices.Contains(conf.GetLearners(), id)
		next.members = append(next.members, m)
		slices.SortFunc(next.members, byID)
	}
	return next, nil
}

var errKnownID = errors.New("a data folder joins once; to take this node in again, empty its data folder first")

// changeConf is what the Raft library does with a change of one node, without
// the library's node: replay needs it, too.
func changeConf(conf *pb.ConfState, single *pb.ConfChangeSingle) (*pb.ConfState, error) {
	t := tracker.MakeProgressTracker(1, 0)
	config, progress, err := confchange.Restore(confchange.Changer{Tracker: t, LastIndex: 1}, conf)
	if err != nil {
		return nil, err
	}
	t.Config, t.Progress = config, progress
	config, progress, err = confchange.Changer{Tracker: t, LastIndex: 1}.Simple(single)
	if err != nil {
		return nil, err
	}
	t.Config, t.Progress = config, progress
	return t.ConfState(), nil
}

// storedMembership is the JSON form, in checkpoints and snapshots.
type storedMembership struct {
	Voters   []uint64 `json:"voters"`
	Learners []uint64 `json:"learners,omitempty"`
	Members  []Member `json:"members"`
	Removed  []Member `json:"removed,omitempty"`
	Format   uint16   `json:"format"`
}

func (g membership) encode() ([]byte, error) {
	return json.Marshal(storedMembership{g.conf.GetVoters(), g.conf.GetLearners(), g.members, g.removed, g.format})
}

func decodeMembership(b []byte) (membership, error) {
	var in storedMembership
	if err := json.Unmarshal(b, &in); err != nil {
		return membership{}, fmt.Errorf("membership: %w", err)
	}
	g := membership{conf: &pb.ConfState{Voters: in.Voters, Learners: in.Learners}, members: in.Members, removed: in.Removed, format: in.Format}
	for _, id := range append(slices.Clone(in.Voters), in.Learners...) {
		if _, ok := g.byID(id); !ok {
			return membership{}, fmt.Errorf("membership: nothing is said of node %d", id)
		}
	}
	return g, nil
}

// decodeMembershipV1 reads that of version 1 of the checkpoint, which knew groups
// of one without a name.
func decodeMembershipV1(b []byte) (membership, error) {
	conf := &pb.ConfState{}
	if err := proto.Unmarshal(b, conf); err != nil {
		return membership{}, fmt.Errorf("membership: %w", err)
	}
	g := membership{conf: conf, format: 1}
	for _, id := range conf.GetVoters() {
		g.members = append(g.members, Member{ID: id})
	}
	return g, nil
}

func decodeChange(e *pb.Entry) (*pb.ConfChangeV2, change, error) {
	cc := &pb.ConfChangeV2{}
	if err := proto.Unmarshal(e.GetData(), cc); err != nil {
		return nil, change{}, fmt.Errorf("entry %d: change of membership: %w", e.GetIndex(), err)
	}
	var c change
	if err := json.Unmarshal(cc.GetContext(), &c); err != nil {
		return nil, change{}, fmt.Errorf("entry %d: change of membership: %w", e.GetIndex(), err)
	}
	return cc, c, nil
}
