package semisync

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"kingbus/internal/hook"
)

// ChainSettings say what the acknowledgement to the source waits for beside the quorum.
type ChainSettings struct {
	// Replicas is how many replicas have to have a transaction, on whichever nodes they
	// hang; 0: the quorum is enough.
	Replicas int `json:"replicas"`
	// Timeout is how long they may take before Policy decides.
	Timeout time.Duration `json:"timeout"`
	Policy  Policy        `json:"on_timeout"`
}

// Policy is what happens when replicas take too long.
type Policy string

// The policies.
const (
	// PolicyDegrade: the quorum is enough until so many replicas have caught up.
	PolicyDegrade Policy = "degrade"
	// PolicyHold: the source waits on, for as long as it takes.
	PolicyHold Policy = "hold"
)

// ParsePolicy reads a policy.
func ParsePolicy(s string) (Policy, error) {
	switch p := Policy(s); p {
	case PolicyDegrade, PolicyHold:
		return p, nil
	}
	return "", fmt.Errorf("it is degrade or hold, not %q", s)
}

// maxChained is the greatest number of replicas that can be waited for.
const maxChained = 64

// ParseAcknowledge reads quorum or quorum+N, and returns N.
func ParseAcknowledge(s string) (replicas int, err error) {
	if s == "quorum" {
		return 0, nil
	}
	number, ok := strings.CutPrefix(s, "quorum+")
	if replicas, err = strconv.Atoi(number); !ok || err != nil || replicas < 1 || replicas > maxChained {
		return 0, fmt.Errorf("it is quorum, or quorum+N with N from 1 to %d, not %q", maxChained, s)
	}
	return replicas, nil
}

// FormatAcknowledge is the text that ParseAcknowledge reads.
func FormatAcknowledge(replicas int) string {
	if replicas == 0 {
		return "quorum"
	}
	return "quorum+" + strconv.Itoa(replicas)
}

// chain is the decision how far the source may be acknowledged where replicas have to have
// a transaction, too. It is pure. Every node keeps one; that of the leader counts.
type chain struct {
	ChainSettings
	replicas map[string]place // what each has; a name is one replica, wherever it hangs
	waiting  []chained        // ascending
	enough   place            // what enough of them have; zero: there are not so many
	newest   place            // of the transactions that were committed
	allowed  hook.Position    // at the source, behind the last transaction that was let go
	degraded bool             // only between begin and end
	mark     chained          // while degraded: what was the newest once, and when
	times    uint64           // how often it was degraded
}

// chained are transactions that replicas have to have.
type chained struct {
	at     place         // where they end in the served binlog
	source hook.Position // and at the source
	since  time.Time
}

func newChain(s ChainSettings) *chain {
	return &chain{ChainSettings: s, replicas: map[string]place{}}
}

// begin is told what the stream has when this node begins to follow the source: what
// replicas do not have of it waits from now on.
func (c *chain) begin(at place, source hook.Position, now time.Time) {
	if at.compare(c.newest) > 0 {
		c.wait(at, source, now, false)
	}
	for i := range c.waiting {
		c.waiting[i].since = now
	}
}

// end is told that this node answers the source no more. It may have let go of what replicas do
// not have, because they took too long; of what others commit from now on it lets nothing go,
// since those wait, and it must wait as well when it comes to answer again.
func (c *chain) end() { c.degraded = false }

// configure changes what is waited for, and tells whether something is let go by it. What was
// let go stays so; what waits, and what comes from now on, waits for what is said now.
func (c *chain) configure(s ChainSettings) (released bool) {
	c.ChainSettings, c.degraded = s, false
	c.enough = c.group()
	n := 0
	for ; n < len(c.waiting) && (c.Replicas == 0 || c.waiting[n].at.compare(c.enough) <= 0); n++ {
		c.allowed = c.waiting[n].source
	}
	c.waiting = slices.Delete(c.waiting, 0, n)
	return n > 0
}

// commit notes transactions up to a place. One that begin was told of is not new. own: they have
// come over the link for which this node answers; what others commit is for them to let go, also
// while this node's link has not heard yet that it has ended.
func (c *chain) commit(at place, source hook.Position, now time.Time, own bool) {
	if at.compare(c.newest) > 0 {
		c.wait(at, source, now, own)
	}
}

func (c *chain) wait(at place, source hook.Position, now time.Time, own bool) {
	c.newest = at
	switch {
	case at == place{}: // nothing was ever stored
	case c.Replicas == 0, c.degraded && own, c.enough.compare(at) >= 0:
		c.allowed = source
	case len(c.waiting) >= maxWaiting:
		last := &c.waiting[len(c.waiting)-1]
		last.at, last.source = at, source
	default:
		c.waiting = append(c.waiting, chained{at, source, now})
	}
}

// maxReplicas bounds how many replicas are remembered; beyond, who has least is forgotten.
const maxReplicas = 1024

// has notes that a replica has everything up to a place, and tells whether something is
// let go by it.
func (c *chain) has(name string, at place, now time.Time) (released bool) {
	if had, there := c.replicas[name]; there && at.compare(had) <= 0 {
		return false
	}
	c.replicas[name] = at
	if len(c.replicas) > maxReplicas {
		names := slices.Collect(maps.Keys(c.replicas))
		delete(c.replicas, slices.MinFunc(names, func(a, b string) int {
			return cmp.Or(c.replicas[a].compare(c.replicas[b]), cmp.Compare(a, b))
		}))
	}
	c.enough = c.group()
	c.degraded = c.degraded && !c.keepUp(now)
	n := 0
	for ; n < len(c.waiting) && c.waiting[n].at.compare(c.enough) <= 0; n++ {
		c.allowed = c.waiting[n].source
	}
	c.waiting = slices.Delete(c.waiting, 0, n)
	return n > 0
}

// keepUp tells whether replicas that took too long do so no more: enough of them have
// within the timeout what was the newest before, though it is not any more.
func (c *chain) keepUp(now time.Time) bool {
	if c.enough.compare(c.mark.at) < 0 {
		return false
	}
	if now.Sub(c.mark.since) >= c.Timeout {
		c.mark = chained{at: c.newest, since: now}
	}
	return c.enough.compare(c.mark.at) >= 0
}

// group finds out what enough replicas have.
func (c *chain) group() place {
	n := max(c.Replicas, 1)
	if len(c.replicas) < n {
		return place{}
	}
	all := slices.SortedFunc(maps.Values(c.replicas), func(a, b place) int { return b.compare(a) })
	return all[n-1]
}

// late returns when the oldest has waited too long; zero: nothing waits.
func (c *chain) late() time.Time {
	if len(c.waiting) == 0 {
		return time.Time{}
	}
	return c.waiting[0].since.Add(c.Timeout)
}

// expire lets go of everything if the oldest has waited too long, and the policy lets it;
// it tells whether it has.
func (c *chain) expire(now time.Time) (released bool) {
	late := c.late()
	if late.IsZero() || now.Before(late) || c.Policy == PolicyHold {
		return false
	}
	c.degraded = true
	c.times++
	c.mark = chained{at: c.newest, since: now}
	c.allowed = c.waiting[len(c.waiting)-1].source
	c.waiting = nil
	return true
}
