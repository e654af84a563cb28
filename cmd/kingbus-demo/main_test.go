package main

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"kingbus/internal/demo"
)

func TestArguments(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want int
	}{
		{[]string{"--help"}, 0},
		{[]string{"--rate=0"}, exitUsage},
		{[]string{"--seconds=-1"}, exitUsage},
		{[]string{"--nodes=0"}, exitUsage},
		{[]string{"--replicas=0"}, exitUsage},
		{[]string{"--kill-every=-1s"}, exitUsage},
		{[]string{"--kill=maybe"}, exitUsage},
		{[]string{"--seconds=x"}, exitUsage},
		{[]string{"--nothing"}, exitUsage},
		{[]string{"nothing"}, exitUsage},
		{[]string{"--kingbus=/nowhere/kingbus"}, exitUsage},
	} {
		var stdout, stderr bytes.Buffer
		if got := run(t.Context(), tc.args, &stdout, &stderr); got != tc.want || (stderr.Len() == 0) != (tc.want == 0) {
			t.Errorf("%v: got %d, want %d; stderr: %s", tc.args, got, tc.want, &stderr)
		}
	}
}

func TestExitCode(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{fmt.Errorf("%w: a row", demo.ErrNotEqual), exitFailed},
		{errors.New("disk full"), exitFailed},
		{fmt.Errorf("x: %w", demo.ErrUsage), exitUsage},
		{demo.ErrInterrupted, exitInterrupted},
		{errors.Join(demo.ErrNotEqual, demo.ErrInterrupted), exitFailed},
	} {
		if got := exitCode(tc.err); got != tc.want {
			t.Errorf("%v: got %d, want %d", tc.err, got, tc.want)
		}
	}
}
