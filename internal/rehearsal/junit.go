package rehearsal

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"time"
)

// SuiteResult is what came of the cases of a file.
type SuiteResult struct {
	File    string        `json:"file"`
	Results []*Result     `json:"results"`
	Took    time.Duration `json:"took_real_ns"`
}

// The elements of a JUnit report, as far as the readers of such reports agree on them.
type (
	junitSuites struct {
		XMLName  xml.Name     `xml:"testsuites"`
		Tests    int          `xml:"tests,attr"`
		Failures int          `xml:"failures,attr"`
		Time     string       `xml:"time,attr"`
		Suites   []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Skipped  int         `xml:"skipped,attr"`
		Time     string      `xml:"time,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Name     string         `xml:"name,attr"`
		Class    string         `xml:"classname,attr"`
		File     string         `xml:"file,attr"`
		Time     string         `xml:"time,attr"`
		Skipped  *junitSkipped  `xml:"skipped"`
		Failures []junitFailure `xml:"failure"`
		Output   string         `xml:"system-out,omitempty"`
	}
	junitSkipped struct {
		Message string `xml:"message,attr"`
	}
	junitFailure struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

// WriteJUnit writes results as a JUnit report.
func WriteJUnit(w io.Writer, suites []SuiteResult) error {
	var all junitSuites
	var took time.Duration
	for _, s := range suites {
		one := junitSuite{Name: s.File, Tests: len(s.Results), Time: seconds(s.Took)}
		for _, r := range s.Results {
			c := junitCaseOf(s.File, r)
			if len(c.Failures) > 0 {
				one.Failures++
			}
			if c.Skipped != nil {
				one.Skipped++
			}
			one.Cases = append(one.Cases, c)
		}
		all.Tests += one.Tests
		all.Failures += one.Failures
		took += s.Took
		all.Suites = append(all.Suites, one)
	}
	all.Time = seconds(took)
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(all); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func junitCaseOf(file string, r *Result) junitCase {
	c := junitCase{Name: r.Case, Class: file, File: file, Time: seconds(r.Took)}
	if r.Skipped != "" {
		c.Skipped = &junitSkipped{r.Skipped}
		return c
	}
	for _, f := range r.Failures {
		text := fmt.Sprintf("%s:%d:%d: %s", file, f.Line, f.Col, f.What)
		if f.Expected != "" || f.Got != "" {
			text += fmt.Sprintf("\nexpected: %s\ngot:      %s", f.Expected, f.Got)
		}
		c.Failures = append(c.Failures, junitFailure{Message: f.What, Text: text})
	}
	if len(c.Failures) > 0 {
		c.Output = strings.Join(r.Story, "\n")
	}
	return c
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()) }
