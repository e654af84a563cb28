package bench

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
)

// series are the results of repetitions.
type series []float64

func (s *series) add(v float64) { *s = append(*s, v) }

// median of an even number is the mean of the middle two; of nothing it is 0.
func (s series) median() float64 {
	if len(s) == 0 {
		return 0
	}
	o := slices.Sorted(slices.Values(s))
	n := len(o)
	return (o[(n-1)/2] + o[n/2]) / 2
}

func (s series) max() float64 {
	if len(s) == 0 {
		return 0
	}
	return slices.Max(s)
}

// quantile returns the value below which the share q lies.
func (s series) quantile(q float64) float64 {
	if len(s) == 0 {
		return 0
	}
	o := slices.Sorted(slices.Values(s))
	return o[min(len(o)-1, int(q*float64(len(o))))]
}

// worst is the series of the greatest value alone.
func (s series) worst() series { return series{s.max()} }

// goal is what a ratio of kingbus to the reference has to be.
type goal struct {
	sign  string // ≥, ≤, or "" if there is none
	ratio float64
}

var (
	noGoal  = goal{}
	atLeast = goal{"≥", 1}
	atMost  = goal{"≤", 1}
)

// times is the goal for a ratio that many times as large.
func (g goal) times(n float64) goal { return goal{g.sign, g.ratio * n} }

func (g goal) reached(ratio float64) bool {
	if g.sign == atMost.sign {
		return ratio <= g.ratio
	}
	return ratio >= g.ratio
}

// row is a line of the table; text that is "" is not shown.
type row struct {
	phase, set, what           string
	ours, theirs, ratio, goals string
	verdict                    string // PASS, MISS or ""
}

// report collects the lines of the table.
type report struct{ rows []row }

func verdict(ok bool) string {
	if ok {
		return "PASS"
	}
	return "MISS"
}

func figure(v float64, unit string) string {
	precision := 2
	if v >= 100 {
		precision = 0
	} else if v >= 10 {
		precision = 1
	}
	return fmt.Sprintf("%.*f %s", precision, v, unit)
}

// compare adds a line on the medians of both sides.
func (r *report) compare(phase, set, what, unit string, ours, theirs series, g goal) {
	l := row{phase: phase, set: set, what: what, ours: figure(ours.median(), unit), theirs: figure(theirs.median(), unit)}
	ratio := ours.median() / theirs.median()
	l.ratio = fmt.Sprintf("%.2f", ratio)
	if g != noGoal {
		l.goals, l.verdict = fmt.Sprintf("%s %g", g.sign, g.ratio), verdict(g.reached(ratio))
	}
	r.rows = append(r.rows, l)
}

// limit adds a line on the median of kingbus, which has to be below a limit whatever the reference does; theirs may be
// empty.
func (r *report) limit(phase, set, what, unit string, ours, theirs series, limit float64) {
	l := row{phase: phase, set: set, what: what, ours: figure(ours.median(), unit),
		goals: fmt.Sprintf("< %g %s", limit, unit), verdict: verdict(ours.median() < limit)}
	if len(theirs) > 0 {
		l.theirs = figure(theirs.median(), unit)
		l.ratio = fmt.Sprintf("%.3f", ours.median()/theirs.median())
	}
	r.rows = append(r.rows, l)
}

// info adds a line without comparison.
func (r *report) info(phase, set, what, unit string, ours series) {
	r.rows = append(r.rows, row{phase: phase, set: set, what: what, ours: figure(ours.median(), unit)})
}

// maxMemory is the goal for anonymous memory, in MB.
const maxMemory = 200

// memory adds lines on the peaks of anonymous memory.
func (r *report) memory(peaks []peak) {
	for _, p := range peaks {
		r.limit("memory", "", "peak RssAnon, "+p.phase, "MB", series{float64(p.bytes) / 1e6}, nil, maxMemory)
	}
}

// String returns the table, and how many goals were reached.
func (r *report) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "phase\tset\tfigure\tkingbus\treference\tratio\tgoal\t")
	passed, goals := 0, 0
	for _, l := range r.rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", l.phase, l.set, l.what, l.ours, l.theirs, l.ratio, l.goals, l.verdict)
		if l.verdict != "" {
			goals++
		}
		if l.verdict == "PASS" {
			passed++
		}
	}
	_ = w.Flush() // into memory
	fmt.Fprintf(&b, "\n%d of %d goals reached. The ratio is kingbus / reference: mysqlbinlog --raw without any sync (ingest), the real source (serve, first), what the line says (%s, %s).\n", passed, goals, phaseCluster, phaseJoin)
	return b.String()
}
