package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestNoRedirect: nobody gets the token who was not asked, on the word of one who was.
func TestNoRedirect(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("%s was asked with %q", r.URL, r.Header.Get("Authorization"))
	}))
	defer other.Close()
	node := httptest.NewServer(http.RedirectHandler(other.URL+statusPath, http.StatusTemporaryRedirect))
	defer node.Close()
	_, err := newClient(node.URL, "0123456789abcdef", nil).status(t.Context())
	if err == nil || !strings.Contains(err.Error(), "307") {
		t.Errorf("got %v", err)
	}
}
