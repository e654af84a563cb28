package admin

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/prometheus/client_golang/prometheus"

	"kingbus/internal/meter"
)

// TestMonitoring: what dashboard and alert rules ask for is there.
func TestMonitoring(t *testing.T) {
	there := map[string]bool{}
	for _, c := range []prometheus.Collector{newCollector(newServer(t, sample(), exporter{})), meter.New()} {
		descs := make(chan *prometheus.Desc, 1000)
		c.Describe(descs)
		close(descs)
		for d := range descs {
			name := regexp.MustCompile(`fqName: "([^"]+)"`).FindStringSubmatch(d.String())[1]
			there[name] = true
			if strings.HasSuffix(name, "_seconds") { // perhaps a histogram
				there[name+"_bucket"], there[name+"_count"], there[name+"_sum"] = true, true, true
			}
		}
	}
	if len(there) < 50 {
		t.Fatalf("only %d metrics", len(there))
	}
	asked := func(what, expr string) {
		t.Helper()
		names := regexp.MustCompile(`\bkingbus_[a-z0-9_]+`).FindAllString(expr, -1)
		for _, name := range names {
			if !there[name] {
				t.Errorf("%s asks for %s, which is not there", what, name)
			}
		}
		if len(names) == 0 && !strings.Contains(expr, "up{") {
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
		asked(r.Alert, r.Expr)
		if r.Annotations["summary"] == "" || r.Labels["severity"] == "" {
			t.Errorf("%s says nothing", r.Alert)
		}
	}

	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
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
			asked(p.Title, target.Expr)
		}
	}
}
