package api

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/incident"
)

// runPrefix makes a run's id recognisable: run_ and the 32 hex digits of its UUIDv7, one word for a double click.
const runPrefix = "run_"

func formatRunID(id uuid.UUID) RunID { return flow.RunName(id) }

// parseRunID accepts exactly what formatRunID writes.
func parseRunID(text string) (uuid.UUID, error) { return parseID(runPrefix, text, madeByTime) }

// approvalPrefix makes an approval's id recognisable, as runPrefix does a run's.
const approvalPrefix = "apr_"

func formatApprovalID(id uuid.UUID) ApprovalID { return approvalPrefix + hex.EncodeToString(id[:]) }

// parseApprovalID accepts exactly what formatApprovalID writes. Such an id may be worked out from what it is of.
func parseApprovalID(text string) (uuid.UUID, error) {
	return parseID(approvalPrefix, text, func(uuid.UUID) bool { return true })
}

// parseIncidentID accepts exactly what incident.Name writes.
func parseIncidentID(text string) (uuid.UUID, error) {
	return parseID(incident.Prefix, text, madeByTime)
}

func madeByTime(id uuid.UUID) bool { return id.Version() == 7 }

func parseID(prefix, text string, meant func(uuid.UUID) bool) (uuid.UUID, error) {
	digits, ok := strings.CutPrefix(text, prefix)
	var id uuid.UUID
	if ok && len(digits) == hex.EncodedLen(len(id)) && digits == strings.ToLower(digits) {
		if _, err := hex.Decode(id[:], []byte(digits)); err == nil && meant(id) && id.Variant() == uuid.RFC4122 {
			return id, nil
		}
	}
	e := fault.New(fault.KindMalformed, "invalid_id", "an id here is %s and 32 lower-case hex digits", prefix)
	e.Issues = []fault.Issue{{Parameter: "id", Code: "invalid_id", Detail: e.Detail}}
	return uuid.UUID{}, e
}

// formatCursor makes an opaque cursor of a list's position. Kind is the list it belongs to.
func formatCursor(kind string, position any) string {
	raw, err := json.Marshal(position)
	if err != nil { // positions are our own types
		panic(err)
	}
	return base64.RawURLEncoding.EncodeToString(append([]byte(kind+":"), raw...))
}

// parseCursor reads a cursor of the same kind of list back.
func parseCursor(kind, text string, position any) error {
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil {
		body, ok := strings.CutPrefix(string(raw), kind+":")
		if !ok {
			err = fmt.Errorf("a cursor of another list")
		} else {
			err = json.Unmarshal([]byte(body), position)
		}
	}
	if err == nil {
		return nil
	}
	e := fault.New(fault.KindMalformed, "invalid_cursor", "the cursor is not one that this list gave out")
	e.Issues = []fault.Issue{{Parameter: "cursor", Code: "invalid_cursor", Detail: e.Detail}}
	return e
}
