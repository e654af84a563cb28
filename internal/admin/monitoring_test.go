package admin

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"kingbus/internal/hook"
	"kingbus/internal/meter"
	"kingbus/internal/stream"
)

// metricFamily is a metric as Prometheus gets it.
type metricFamily struct {
	name, kind, help string
	labels           []string
}

// full is a status in which every metric has a value.
func full() Status {
	st, at := sample(), stream.Coordinates{File: "b.000002", Pos: 400}
	st.Source.Received, st.Source.Proposed, st.Source.Coordinates, st.Source.Behind = at, at, at, new(1.5)
	st.Source.SemiSync.Last = hook.Position(at)
	st.Certificates = []Certificate{{To: "replicas", NotAfter: time.Unix(5e9, 0)}}
	st.Replicas[0].Acknowledged = hook.Position(at)
	return st
}

// gather returns all of kingbus's own metrics, as a scrape gets them: those of a status and
// those of the path.
func gather(t *testing.T) map[string]metricFamily {
	t.Helper()
	m := meter.New(meter.Config{})
	var set hook.Set
	m.Observe(&set)
	dump := &hook.Dump{ServerID: 12}
	sent, err := set.Transmit[0].Start(dump)
	if err == nil {
		err = sent.AfterSend(dump, &hook.Sending{Asked: true})
	}
	if err != nil {
		t.Fatal(err)
	}
	sent.AfterAck(dump, hook.Position{})
	described := map[string]bool{}
	registry := prometheus.NewPedanticRegistry()
	for _, c := range []prometheus.Collector{newCollector(newServer(t, full(), exporter{})), m} {
		if err := registry.Register(c); err != nil {
			t.Fatal(err)
		}
		descs := make(chan *prometheus.Desc, 1000)
		c.Describe(descs)
		close(descs)
		for d := range descs {
			described[regexp.MustCompile(`fqName: "([^"]+)"`).FindStringSubmatch(d.String())[1]] = true
		}
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]metricFamily{}
	for _, f := range families {
		m := metricFamily{name: f.GetName(), kind: strings.ToLower(f.GetType().String()), help: f.GetHelp()}
		for _, l := range f.GetMetric()[0].GetLabel() {
			m.labels = append(m.labels, l.GetName())
		}
		out[m.name] = m
		delete(described, m.name)
	}
	if len(described) > 0 || len(out) < 80 {
		t.Fatalf("%d metrics have a value, and none have %v", len(out), described)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	return out
}

// TestMetricsPage: the page lists the metrics that there are.
func TestMetricsPage(t *testing.T) {
	all := gather(t)
	var names []string
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	var b strings.Builder
	b.WriteString("# Metrics\n\nWhat `/metrics` tells of kingbus, beside Go's own `go_` and `process_`. This page is made by `make docs`. A histogram is read by its name with `_bucket`, `_sum` and `_count`.\n\n")
	b.WriteString("| metric | type | labels | what |\n| --- | --- | --- | --- |\n")
	for _, name := range names {
		m := all[name]
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.name, m.kind, strings.Join(m.labels, ", "), strings.ReplaceAll(m.help, "|", "\\|"))
	}
	path := filepath.Join("..", "..", "docs", "metrics.md")
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(page) != b.String() {
		t.Errorf("%s is not what the program has: make docs", path)
	}
}

// TestMonitoring: what dashboard and alert rules ask for is there, by name and by label.
func TestMonitoring(t *testing.T) {
	all := gather(t)
	find := func(name string) (metricFamily, bool) {
		if m, ok := all[name]; ok {
			return m, m.kind != "histogram"
		}
		for _, end := range []string{"_bucket", "_sum", "_count"} {
			if m, ok := all[strings.TrimSuffix(name, end)]; ok && strings.HasSuffix(name, end) {
				return m, m.kind == "histogram"
			}
		}
		return metricFamily{}, false
	}
	selector := regexp.MustCompile(`\b(kingbus_[a-z0-9_]+)(?:\{([^}]*)\})?`)
	label := regexp.MustCompile(`([a-z_]+)\s*(?:=~|!=|!~|=)`)
	text := regexp.MustCompile(`\{\{\s*(?:\$labels\.)?([a-z_]+)\s*[|}]`)
	asked := func(what, expr, shown string) {
		t.Helper()
		known := []string{"job", "instance", "le"}
		found := selector.FindAllStringSubmatch(expr, -1)
		for _, f := range found {
			m, ok := find(f[1])
			if !ok {
				t.Errorf("%s asks for %s, which is not there", what, f[1])
			}
			known = append(known, m.labels...)
			for _, l := range label.FindAllStringSubmatch(regexp.MustCompile(`"[^"]*"`).ReplaceAllString(f[2], ""), -1) {
				if !slices.Contains(m.labels, l[1]) && l[1] != "job" {
					t.Errorf("%s asks for the label %s of %s, which is not there", what, l[1], f[1])
				}
			}
		}
		for _, l := range text.FindAllStringSubmatch(shown, -1) {
			if !slices.Contains(known, l[1]) {
				t.Errorf("%s shows the label %s, which is not there", what, l[1])
			}
		}
		if len(found) == 0 && !strings.Contains(expr, "up{") {
			t.Errorf("%s asks for nothing: %q", what, expr)
		}
	}

	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr string
				Annotations map[string]string
				Labels      map[string]string
			}
		}
	}
	b, err := os.ReadFile(filepath.Join("..", "..", "monitoring", "alerts.yml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(b, &rules); err != nil || len(rules.Groups) != 1 || len(rules.Groups[0].Rules) < 10 {
		t.Fatalf("%d groups of rules, %v", len(rules.Groups), err)
	}
	for _, r := range rules.Groups[0].Rules {
		asked(r.Alert, r.Expr, r.Annotations["summary"])
		if r.Annotations["summary"] == "" || r.Labels["severity"] == "" {
			t.Errorf("%s says nothing", r.Alert)
		}
	}

	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr, LegendFormat string }
		}
	}
	if b, err = os.ReadFile(filepath.Join("..", "..", "monitoring", "dashboard.json")); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &dashboard); err != nil || len(dashboard.Panels) < 10 {
		t.Fatalf("%d panels, %v", len(dashboard.Panels), err)
	}
	for _, p := range dashboard.Panels {
		if len(p.Targets) == 0 {
			t.Errorf("%q shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			asked(p.Title, target.Expr, target.LegendFormat)
		}
	}
}
