package admin

import (
	"context"
	"net/http"

	"kingbus/internal/variable"
)

// Variables are what holds for all nodes and can be changed; *variable.Store is one.
type Variables interface {
	Show() []variable.Shown
	Change(ctx context.Context, set map[string]string, reset []string) error
}

// VariablesChange changes variables, all or none.
type VariablesChange struct {
	// Set are values by name, in the form that the list of variables has them.
	Set map[string]string `json:"set,omitempty"`
	// Reset are names of those that are as each node's own settings say from then on.
	Reset []string `json:"reset,omitempty"`
}

func (s *Server) variables(w http.ResponseWriter, _ *http.Request) {
	s.json(w, http.StatusOK, s.cfg.Variables.Show())
}

func (s *Server) changeVariables(ctx context.Context, _ *http.Request, body []byte) (string, error) {
	c, err := decode[VariablesChange](body, "a change of variables")
	if err != nil {
		return "", err
	}
	if len(c.Set)+len(c.Reset) == 0 {
		return "", fail(CodeBadRequest, "no variable is named")
	}
	return "variables: " + brief(c), s.cfg.Variables.Change(ctx, c.Set, c.Reset)
}
