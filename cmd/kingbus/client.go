package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"kingbus/internal/admin"
)

// client asks a running node over HTTP.
type client struct {
	address string // host:port
	http    *http.Client
}

func newClient(address string) *client {
	return &client{address: address, http: &http.Client{Transport: &http.Transport{
		Proxy:                 nil, // a loopback address is never behind one
		DialContext:           (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		ResponseHeaderTimeout: 15 * time.Second,
		DisableKeepAlives:     true,
	}}}
}

// get sends a request. Anything but 200 is an error.
func (c *client) get(ctx context.Context, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.address+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("no kingbus answers at %s: start it with `kingbus serve`, or name the address of its HTTP API with --admin-listen", c.address)
	}
	if err != nil {
		return nil, fmt.Errorf("ask the node at %s: %w", c.address, errors.Unwrap(err))
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	var failure admin.Failure
	if json.Unmarshal(b, &failure) == nil && failure.Error != "" {
		return nil, errors.New(failure.Error)
	}
	return nil, fmt.Errorf("the node at %s answers %s: %.200s", c.address, resp.Status, strings.TrimSpace(string(b)))
}

// maxStatus bounds what is read of a status.
const maxStatus = 256 << 20

// status returns the node's status, and the text it came in.
func (c *client) status(ctx context.Context) (admin.Status, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	resp, err := c.get(ctx, "/api/v1/status")
	if err != nil {
		return admin.Status{}, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxStatus))
	if err != nil {
		return admin.Status{}, nil, fmt.Errorf("read the answer of %s: %w", c.address, err)
	}
	var st admin.Status
	if err := json.Unmarshal(b, &st); err != nil {
		return admin.Status{}, nil, fmt.Errorf("what answers at %s is not kingbus: %w", c.address, err)
	}
	return st, b, nil
}
