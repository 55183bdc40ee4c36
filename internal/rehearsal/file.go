// Package rehearsal tests workflows: it runs them in memory, by the real rules, worker and gateway, with models, tools and
// people that answer from a script, in a time of its own that passes at once. No database and no network are needed. The
// same case gives the same result.
package rehearsal

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"time"

	"github.com/fermata-run/fermata/internal/workflow"
)

// Schema is the JSON Schema of a test file.
//
//go:embed schema.json
var Schema json.RawMessage

// file is a test file as it is written; schema.json says what each key means.
type file struct {
	Workflow   json.RawMessage            `json:"workflow"`
	Template   string                     `json:"template"`
	Workflows  map[string]json.RawMessage `json:"workflows"`
	At         time.Time                  `json:"at"`
	Models     []modelLine                `json:"models"`
	Tools      []toolLine                 `json:"tools"`
	Approvals  []approvalLine             `json:"approvals"`
	Unscripted string                     `json:"unscripted"`
	Cases      []*Case                    `json:"cases"`
}

// Case is one case of a test file.
type Case struct {
	Name   string `json:"name"`
	Skip   string `json:"skip"` // why it is left out; empty: it is not
	Expect expect `json:"expect"`

	Workflow   json.RawMessage   `json:"workflow"`
	Template   string            `json:"template"`
	Input      json.RawMessage   `json:"input"`
	Labels     map[string]string `json:"labels"`
	Stakes     string            `json:"stakes"`
	Mode       string            `json:"mode"`
	Budget     *budgetLine       `json:"budget"`
	Models     []modelLine       `json:"models"`
	Tools      []toolLine        `json:"tools"`
	Approvals  []approvalLine    `json:"approvals"`
	Signals    []signalLine      `json:"signals"`
	Steer      []steerLine       `json:"steer"`
	Crash      crash             `json:"crash"`
	Replace    map[string]order  `json:"models_replace"`
	Unscripted string            `json:"unscripted"`
	WaitOut    bool              `json:"wait_out"`
	Limits     limits            `json:"limits"`
	Compare    *comparing        `json:"compare"`

	suite    *Suite
	pointer  string
	compiled *workflow.Workflow
	at       time.Time
}

// modelLine is one line of the script of the models.
type modelLine struct {
	Step    string          `json:"step"`
	Agent   string          `json:"agent"`
	Model   string          `json:"model"`
	Attempt int             `json:"attempt"`
	Turn    int             `json:"turn"`
	Prompt  string          `json:"prompt"`
	Times   int             `json:"times"`
	Answer  json.RawMessage `json:"answer"`
	Calls   []callLine      `json:"calls"`
	Error   string          `json:"error"`
	Message string          `json:"message"`
	Latency span            `json:"latency"`
	Tokens  *tokens         `json:"tokens"`

	pointer string
}

// callLine is a tool that a model asks for, like delegate.
type callLine struct {
	Name      string          `json:"name"`
	Arguments json.RawMessage `json:"arguments"`
}

type tokens struct {
	Input      int64 `json:"input"`
	CacheRead  int64 `json:"cache_read"`
	CacheWrite int64 `json:"cache_write"`
	Output     int64 `json:"output"`
	Reasoning  int64 `json:"reasoning"`
}

type toolLine struct {
	Step    string          `json:"step"`
	Tool    string          `json:"tool"`
	Attempt int             `json:"attempt"`
	Times   int             `json:"times"`
	Output  json.RawMessage `json:"output"`
	Error   string          `json:"error"`
	Message string          `json:"message"`
	Latency span            `json:"latency"`

	pointer string
}

type approvalLine struct {
	Step   string          `json:"step"`
	About  string          `json:"about"`
	Choice string          `json:"choice"`
	Form   json.RawMessage `json:"form"`
	Reason string          `json:"reason"`
	By     string          `json:"by"`
	After  span            `json:"after"`
	Times  int             `json:"times"`

	pointer string
}

type signalLine struct {
	Name  string          `json:"name"`
	Data  json.RawMessage `json:"data"`
	After span            `json:"after"`
}

type steerLine struct {
	Do     string                     `json:"do"`
	After  span                       `json:"after"`
	Reason string                     `json:"reason"`
	Set    map[string]json.RawMessage `json:"set"`
	USD    float64                    `json:"usd"`
	Tokens int64                      `json:"tokens"`
}

type budgetLine struct {
	USD    float64 `json:"usd"`
	Tokens int64   `json:"tokens"`
}

type limits struct {
	Events int  `json:"events"`
	Time   span `json:"time"`
}

type comparing struct {
	With struct {
		Workflow json.RawMessage  `json:"workflow"`
		Input    json.RawMessage  `json:"input"`
		Replace  map[string]order `json:"models_replace"`
		Models   []modelLine      `json:"models"`
		Tools    []toolLine       `json:"tools"`
		Stakes   string           `json:"stakes"`
		Mode     string           `json:"mode"`
	} `json:"with"`
	Assert []string `json:"assert"`
}

// expect is what a case expects. Nil and zero: nothing.
type expect struct {
	Status  string                `json:"status"`
	Output  json.RawMessage       `json:"output"`
	Assert  []string              `json:"assert"`
	Steps   map[string]stepExpect `json:"steps"`
	Order   []string              `json:"order"`
	Calls   map[string]int        `json:"calls"`
	Error   *errorExpect          `json:"error"`
	Waiting []string              `json:"waiting"`
	Golden  string                `json:"golden"`
}

type errorExpect struct {
	Class   string `json:"class"`
	Step    string `json:"step"`
	Message string `json:"message"`
}

type stepExpect struct {
	Status   string          `json:"status"`
	Count    *int            `json:"count"`
	Attempts *int            `json:"attempts"`
	Output   json.RawMessage `json:"output"`
	Model    string          `json:"model"`
	Agent    string          `json:"agent"`
	Error    string          `json:"error"`
}

// UnmarshalJSON takes a status by itself, too.
func (e *stepExpect) UnmarshalJSON(raw []byte) error {
	if raw[0] == '"' {
		return json.Unmarshal(raw, &e.Status)
	}
	type plain stepExpect
	return json.Unmarshal(raw, (*plain)(e))
}

// span is a duration as definitions spell it.
type span time.Duration

// UnmarshalJSON reads it; the schema has checked its form.
func (s *span) UnmarshalJSON(raw []byte) error {
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return err
	}
	d, ok := workflow.ParseDuration(text)
	if !ok {
		return fmt.Errorf("%q is not a duration", text)
	}
	*s = span(d)
	return nil
}

// order is the models an agent asks, in turn.
type order []string

// UnmarshalJSON takes one by itself, too.
func (o *order) UnmarshalJSON(raw []byte) error {
	if raw[0] == '"' {
		*o = make(order, 1)
		return json.Unmarshal(raw, &(*o)[0])
	}
	return json.Unmarshal(raw, (*[]string)(o))
}

// crash says where the node dies.
type crash struct {
	Every bool
	After []string // globs of steps
}

// UnmarshalJSON reads every, or {after}.
func (c *crash) UnmarshalJSON(raw []byte) error {
	if raw[0] == '"' {
		c.Every = true
		return nil
	}
	var at struct {
		After []string `json:"after"`
	}
	err := json.Unmarshal(raw, &at)
	c.After = at.After
	return err
}
