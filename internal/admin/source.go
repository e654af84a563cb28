package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"kingbus/internal/follow"
)

// Follow is how the API changes which source the cluster follows; *follow.Store is one.
type Follow interface {
	Setting() (follow.Setting, uint64, error)
	Change(ctx context.Context, c follow.Change) error
	Start(ctx context.Context, until string) error
	Stop(ctx context.Context) error
	Reset(ctx context.Context) error
}

// Followed is whom the cluster follows, and how.
type Followed struct {
	// Said is what the cluster says of its source, without the password. What is not there is
	// as in the settings of each node.
	Said follow.Change `json:"said"`
	// HasPassword: the cluster says one.
	HasPassword bool `json:"has_password"`
	// Stopped: nobody follows the source, until somebody says so.
	Stopped bool `json:"stopped"`
	// Until is where following stops, or has stopped; "": nowhere.
	Until string `json:"until,omitempty"`
	// Link is how the node that is asked follows it.
	Link Source `json:"link"`
}

func (s *Server) source(w http.ResponseWriter, _ *http.Request) {
	now, _, err := s.cfg.Follow.Setting()
	if err != nil {
		s.fail(w, &failure{CodeUnavailable, err, "upgrade this node to the version that the others run"})
		return
	}
	s.json(w, http.StatusOK, Followed{Said: now.Said(), HasPassword: now.Password != "", Stopped: now.Stopped, Until: now.Until, Link: s.cfg.Status().Source})
}

func (s *Server) changeSource(ctx context.Context, _ *http.Request, body []byte) (string, error) {
	c, err := decode[follow.Change](body, "a change of the source")
	if err != nil {
		return "", err
	}
	shown := c
	if c.Password != nil {
		shown.Password = new(hidden)
	}
	return "how the source is followed: " + brief(shown), s.cfg.Follow.Change(ctx, c)
}

// StartSource says how far to follow the source.
type StartSource struct {
	// Until is after:SET or before:SET of GTIDs, or FILE:POSITION of the source: there following
	// stops. "": it does not.
	Until string `json:"until,omitempty"`
}

func (s *Server) startSource(ctx context.Context, _ *http.Request, body []byte) (string, error) {
	var start StartSource
	if len(body) > 0 {
		var err error
		if start, err = decode[StartSource](body, "how far to follow the source"); err != nil {
			return "", err
		}
	}
	what := "follow the source"
	if start.Until != "" {
		what += fmt.Sprintf(" until %.1024s", start.Until)
	}
	err := s.cfg.Follow.Start(ctx, start.Until)
	if errors.Is(err, follow.ErrFollowed) && start.Until == "" { // every change may be repeated
		err = nil
	}
	return what, err
}

func (s *Server) stopSource(ctx context.Context, _ *http.Request, _ []byte) (string, error) {
	err := s.cfg.Follow.Stop(ctx)
	if errors.Is(err, follow.ErrStopped) {
		err = nil
	}
	return "stop following the source", err
}

func (s *Server) resetSource(ctx context.Context, _ *http.Request, _ []byte) (string, error) {
	return "forget what was said of the source", s.cfg.Follow.Reset(ctx)
}
