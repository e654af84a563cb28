package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"time"

	"kingbus/internal/admin"
)

// client asks a running node over HTTP.
type client struct {
	base  string // http or https, host and port
	token string
	http  *http.Client
}

// newClient makes one; trust is whom it trusts and what it shows with https.
func newClient(base, token string, trust *tls.Config) *client {
	return &client{base: base, token: token, http: &http.Client{
		Transport: &http.Transport{
			Proxy:                 nil, // a node is never behind one
			DialContext:           (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			TLSClientConfig:       trust,
			TLSHandshakeTimeout:   5 * time.Second,
			ResponseHeaderTimeout: 15 * time.Second,
			DisableKeepAlives:     true,
		},
		// No node sends anybody elsewhere, and the token would go along, even to http.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// answerError is an error that the node has answered with.
type answerError struct{ admin.Failure }

func (e *answerError) Error() string {
	return printable(strings.ReplaceAll(e.Failure.Error, "\n", "; ")) // which joins errors
}

// answered tells whether an error is an answer with one of the codes.
func answered(err error, codes ...admin.Code) bool {
	var e *answerError
	return errors.As(err, &e) && slices.Contains(codes, e.Code)
}

// get sends a request. Anything but 200 is an error.
func (c *client) get(ctx context.Context, path string) (*http.Response, error) {
	return c.do(ctx, http.MethodGet, path, nil)
}

// do sends a request with a body, if it is not nil, as JSON. Anything but 200 and
// 204 is an error.
func (c *client) do(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var text io.Reader = http.NoBody
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		text = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, text)
	if err != nil {
		return nil, err
	}
	admin.Authorize(req, c.token)
	if method != http.MethodGet {
		req.Header.Set("Content-Type", "application/json") // the API demands it, with or without a body
	}
	resp, err := c.http.Do(req)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("no kingbus answers at %s: start it with `kingbus serve`, or name the address of its HTTP API with --admin or --admin-listen", c.base)
	}
	if unknown := (*tls.CertificateVerificationError)(nil); errors.As(err, &unknown) {
		return nil, fmt.Errorf("the certificate of %s is not one to trust: %w; --admin-tls-ca names the authority of a node's certificate", c.base, unknown.Err)
	}
	if err != nil {
		return nil, fmt.Errorf("ask the node at %s: %w", c.base, errors.Unwrap(err))
	}
	if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusNoContent {
		return resp, nil
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	var failure admin.Failure
	if json.Unmarshal(b, &failure) == nil && failure.Error != "" {
		return nil, &answerError{failure}
	}
	return nil, fmt.Errorf("the node at %s answers %s: %.200s", c.base, resp.Status, strings.TrimSpace(string(b)))
}

// change asks for a change of the cluster.
func (c *client) change(ctx context.Context, method, path string, body any) error {
	resp, err := c.do(ctx, method, path, body)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// maxStatus bounds what is read of a status.
const maxStatus = 256 << 20

// Where the API has the status, and the part of it that is about the cluster.
const (
	statusPath  = "/api/v1/status"
	clusterPath = "/api/v1/cluster"
)

// status returns the node's status.
func (c *client) status(ctx context.Context) (st admin.Status, err error) {
	_, err = c.read(ctx, statusPath, &st)
	return st, err
}

// cluster returns the node's view of its cluster.
func (c *client) cluster(ctx context.Context) (group admin.Cluster, err error) {
	_, err = c.read(ctx, clusterPath, &group)
	return group, err
}

// read fetches JSON into v, and returns its text.
func (c *client) read(ctx context.Context, path string, v any) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	resp, err := c.get(ctx, path)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxStatus))
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", c.base, err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return nil, fmt.Errorf("what answers at %s is not kingbus: %w", c.base, err)
	}
	return b, nil
}
