package admin

import (
	"log/slog"
	"sync"
	"time"
)

// refusal is why somebody was refused before anybody looked at what he asks for.
type refusal string

const (
	refusedConnection  refusal = "connections"
	refusedToken       refusal = "token"
	refusedCertificate refusal = "certificate"
	refusedNothing     refusal = "nothing"
)

// refusedEvery is how often the log tells of a kind of refusal at the most: whoever is refused
// must not fill it.
const refusedEvery = time.Minute

// refusals counts them by their kind, and tells the log. Make one with newRefusals.
type refusals struct {
	log *slog.Logger
	now func() time.Time

	mu    sync.Mutex
	kinds []refusedKind
}

type refusedKind struct {
	why        refusal
	says, next string // to the log
	count      uint64
	told       uint64 // of count, when the log was told last
	at         time.Time
}

func newRefusals(log *slog.Logger, now func() time.Time) *refusals {
	return &refusals{log: log, now: now, kinds: []refusedKind{
		{why: refusedConnection, says: "a connection to the HTTP API was closed: there are too many, of that address or of all together", next: "look at who keeps them open there"},
		{why: refusedToken, says: "a request to the HTTP API showed a wrong token", next: "if it is a client of yours, give it the one of keys/admin-token in the data folder, or of --admin-token-file; else keep it away"},
		{why: refusedCertificate, says: "a request to the HTTP API came over a connection with a certificate that is trusted no more", next: "if it is a client of yours, give it one that the authority of --admin-tls-ca has signed"},
		{why: refusedNothing, says: "a request to the HTTP API showed neither the token nor a certificate"},
	}}
}

// note counts somebody who was refused.
func (r *refusals) note(why refusal, from string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.kinds {
		k := &r.kinds[i]
		if k.why != why {
			continue
		}
		k.count++
		if now := r.now(); k.at.IsZero() || now.Sub(k.at) >= refusedEvery {
			attributes := []any{"from", from, "count", k.count - k.told}
			if k.next != "" {
				attributes = append(attributes, "next_step", k.next)
			}
			r.log.Warn(k.says, attributes...)
			k.at, k.told = now, k.count
		}
	}
}

// each gives out how many there were of each kind.
func (r *refusals) each(give func(value float64, labels ...string)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.kinds {
		give(float64(r.kinds[i].count), string(r.kinds[i].why))
	}
}
