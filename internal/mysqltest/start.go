package mysqltest

import (
	"context"
	"errors"
	"os"
	"strings"
)

// TB is what Start needs of a *testing.T.
type TB interface {
	Helper()
	Name() string
	Logf(format string, args ...any)
	Fatalf(format string, args ...any)
	Failed() bool
	Cleanup(func())
	Context() context.Context
}

// Start launches an instance for a test, or fails the test. The instance is closed when the test ends; if the test has
// failed, its error log is kept and the path logged.
func Start(t TB, opts Options) *Instance {
	t.Helper()
	if opts.Name == "" {
		opts.Name = t.Name()
	}
	if opts.Progress == nil {
		last := ""
		opts.Progress = func(message string) {
			kind, _, _ := strings.Cut(message, " ") // a test log wants the steps, not the counting
			if kind != last {
				t.Logf("mysqltest: %s", message)
			}
			last = kind
		}
	}
	inst, err := Launch(t.Context(), opts)
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			if path, err := inst.KeepLog(); errors.Is(err, os.ErrNotExist) {
				t.Logf("error log of %s is gone: the test closed it", inst.Name)
			} else if err != nil {
				t.Logf("%v", err)
			} else {
				t.Logf("error log of %s is in %s", inst.Name, path)
			}
		}
		if err := inst.Close(); err != nil {
			t.Logf("%v", err)
		}
	})
	return inst
}
