package workflow

import (
	"encoding/json"

	"github.com/fermata-run/fermata/internal/fault"
)

// Compile: see the brief. Replaced by the real files.
func Compile(source []byte) (*Workflow, error) { panic("stub") }

type Schema struct{ Raw json.RawMessage }

func (s *Schema) Check(value json.RawMessage) []fault.Issue           { panic("stub") }
func (s *Schema) Fill(value json.RawMessage) (json.RawMessage, error) { panic("stub") }

type Expr struct{ Source string }

func (e *Expr) Bool(s *Scope) (bool, error) { panic("stub") }
func (e *Expr) Eval(s *Scope) (any, error)  { panic("stub") }

type Template struct{ Source json.RawMessage }

func (t *Template) Render(s *Scope) (json.RawMessage, error) { panic("stub") }
func (t *Template) Text(s *Scope) (string, error)            { panic("stub") }

func Decode(raw json.RawMessage) (any, error) { panic("stub") }
