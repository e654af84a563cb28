package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// How a node comes into a group. An empty folder gets a Raft id of its own, and
// belongs to no cluster. Alone it founds one at once. With a list of initial
// members, the one whose name is the least founds it, when it has heard from all
// others that they belong to none either; that happens once, because each of them
// knows the cluster from then on, and the list counts for nothing. Everybody else
// waits until the leader calls: that of the cluster it is founded in, or of one
// that it was added to.
//
// The founder begins with a snapshot of entry firstIndex, which holds nothing but
// the members; all others get theirs from the leader.

// foundEvery is how often the founder asks the others.
const foundEvery = 300 * time.Millisecond

// sayEvery is how often a log repeats what a node waits for; errors have port
// numbers in them, and so are never twice the same.
const sayEvery = 10 * time.Second

// ParseMembers reads a list NAME=HOST:PORT,NAME=HOST:PORT….
func ParseMembers(list string) ([]Member, error) {
	var out []Member
	for part := range strings.SplitSeq(list, ",") {
		name, address, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok || name == "" || address == "" {
			return nil, fmt.Errorf("%q is not NAME=HOST:PORT", part)
		}
		for _, m := range out {
			if m.Name == name || m.Address == address {
				return nil, fmt.Errorf("%q and %q have the same name or address", m.Name+"="+m.Address, part)
			}
		}
		out = append(out, Member{Name: name, Address: address})
	}
	return out, nil
}

// found waits for a cluster, or founds it.
func (n *Node) found(ctx context.Context) error {
	initial := slices.Clone(n.cfg.Initial)
	slices.SortFunc(initial, func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
	founder := len(initial) > 0 && initial[0].Name == n.cfg.Name
	var said time.Time
	say := func(text string) {
		if time.Since(said) >= sayEvery {
			said = time.Now()
			n.log.Info(text)
		}
	}
	switch {
	case len(initial) > 0 && !founder:
		say(fmt.Sprintf("waiting for node %s, which begins the cluster when all initial members are up; if there is a cluster already, `kingbus node add %s %s` on a member takes this node in", initial[0].Name, n.cfg.Name, n.cfg.Address))
		return nil
	case !founder:
		say(fmt.Sprintf("this data folder belongs to no cluster yet: waiting to be taken in (`kingbus node add %s %s` on a member does it)", n.cfg.Name, n.cfg.Address))
		return nil
	}
	for len(n.group().members) == 0 && !n.installing.Load() {
		members, err := n.gather(ctx, initial)
		var known *knownError
		switch {
		case err == nil:
			return n.begin(members)
		case errors.As(err, &known):
			say(fmt.Sprintf("%v: waiting to be taken in. If this node was a member with another data folder, `kingbus node remove %s` first, then `kingbus node add %s %s`", err, n.cfg.Name, n.cfg.Name, n.cfg.Address))
		default:
			say("waiting for the initial members, to begin the cluster: " + err.Error())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(foundEvery):
		}
	}
	return nil
}

// knownError: a cluster is there already.
type knownError struct{ by Member }

func (e *knownError) Error() string {
	return fmt.Sprintf("node %s belongs to a cluster already", e.by)
}

// gather asks all initial members who they are. It fails unless all answer and
// belong to no cluster.
func (n *Node) gather(ctx context.Context, initial []Member) ([]Member, error) {
	var members []Member
	var missing error
	for _, m := range initial {
		if m.Name == n.cfg.Name {
			members = append(members, Member{ID: n.id, Name: m.Name, Address: n.cfg.Address})
			continue
		}
		h, err := n.probe(ctx, m.Address)
		switch {
		case err != nil:
			missing = errors.Join(missing, err)
			continue
		case h.Member:
			return nil, &knownError{m}
		case h.Name != m.Name:
			return nil, fmt.Errorf("the node at %s calls itself %q, the list of initial members calls it %q", m.Address, h.Name, m.Name)
		case slices.ContainsFunc(members, func(other Member) bool { return other.ID == h.From }):
			return nil, fmt.Errorf("two of the initial members are the same node, %s", m)
		}
		members = append(members, Member{ID: h.From, Name: m.Name, Address: m.Address})
	}
	return members, missing
}

// begin founds the cluster. The cluster's id is on disk before anybody hears it.
func (n *Node) begin(members []Member) error {
	if err := n.adopt(randomUint64() | 1); err != nil { // one that was chosen before a crash stays
		return err
	}
	group := founded(members, n.cfg.MaxFormat)
	data, err := checkpoint{index: firstIndex, term: firstTerm, group: group}.encode()
	if err != nil {
		return err
	}
	n.log.Info("beginning a new cluster", "cluster_id", n.clusterID.Load(), "members", members)
	// In the name of another member: Raft takes no message of its own.
	var from uint64
	for _, m := range members {
		if m.ID != n.id {
			from = m.ID
		}
	}
	n.inbox.push(incoming{m: snapshotMessage(checkpoint{index: firstIndex, term: firstTerm, group: group}, data, from, n.id, firstTerm)})
	return nil
}

// adopt notes durably to which cluster this folder belongs. It belongs to one for
// good.
func (n *Node) adopt(cluster uint64) error {
	n.adopting.Lock()
	defer n.adopting.Unlock()
	if n.clusterID.Load() != 0 {
		return nil
	}
	id := n.identity
	id.Cluster = cluster
	if err := id.save(n.cfg.FS, n.dir); err != nil {
		return fmt.Errorf("write identity: %w", err)
	}
	n.identity = id
	n.clusterID.Store(cluster)
	n.log.Info("this data folder belongs to a cluster from now on", "cluster_id", cluster, "raft_id", n.id)
	return nil
}
