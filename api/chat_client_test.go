package api

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	openai "github.com/sashabaranov/go-openai"

	"github.com/fermata-run/fermata/internal/gateway"
)

// client is OpenAI's API as a library speaks it, against a service over a real connection.
func (s *service) client(t testing.TB) *openai.Client {
	t.Helper()
	cfg := openai.DefaultConfig("any key")
	cfg.BaseURL = s.serve(t).URL + "/v1"
	return openai.NewClientWithConfig(cfg)
}

func asking(model, text string) openai.ChatCompletionRequest {
	return openai.ChatCompletionRequest{
		Model: model, Messages: []openai.ChatCompletionMessage{{Role: "user", Content: text}}, Seed: new(int),
		StreamOptions: nil, MaxCompletionTokens: 200,
	}
}

// simulated is a service whose gateway is a real one, in front of a simulation.
func simulated(t testing.TB) *service {
	t.Helper()
	p, err := gateway.Connect(gateway.ProviderConfig{Name: "simulated", Kind: gateway.KindSimulated, Fallback: true})
	if err != nil {
		t.Fatal(err)
	}
	g, err := gateway.New(gateway.Config{Providers: []gateway.Provider{p}})
	if err != nil {
		t.Fatal(err)
	}
	return newService(t, func(c *Config) { c.Gateway = g })
}

// An OpenAI client gets the same answer whole and in parts, from a model, a chain and a workflow.
func TestOpenAIClient(t *testing.T) {
	s := simulated(t)
	s.publish(t, topical, reviewing)
	c := s.client(t)
	for _, model := range []string{"gpt-4o", "chain/production", "route/classification", "auto", "agent/review/writer", "workflow/topical"} {
		t.Run(model, func(t *testing.T) {
			req := asking(model, "Tell me of the tides.")
			whole, err := c.CreateChatCompletion(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			text := whole.Choices[0].Message.Content
			if text == "" || whole.Choices[0].FinishReason != "stop" || whole.Header().Get("Request-Id") == "" {
				t.Fatalf("got %+v", whole)
			}
			isRun := strings.HasPrefix(model, "workflow/")
			if isRun == (whole.Usage.TotalTokens > 0) || isRun != (whole.Header().Get("Fermata-Run") != "") || isRun == (whole.Header().Get("Fermata-Simulated") == "true") {
				t.Errorf("got %+v %v", whole.Usage, whole.Header())
			}
			req.StreamOptions = &openai.StreamOptions{IncludeUsage: true}
			streamed, usage := readStream(t, c, req)
			if !strings.HasPrefix(model, "agent/") && streamed != text {
				t.Errorf("streamed %q, whole %q", streamed, text)
			}
			if usage == nil || usage.TotalTokens == 0 && !isRun {
				t.Errorf("the usage is %+v", usage)
			}
		})
	}
}

func readStream(t testing.TB, c *openai.Client, req openai.ChatCompletionRequest) (string, *openai.Usage) {
	t.Helper()
	stream, err := c.CreateChatCompletionStream(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	var text strings.Builder
	var usage *openai.Usage
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return text.String(), usage
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, choice := range part.Choices {
			text.WriteString(choice.Delta.Content)
		}
		if part.Usage != nil {
			usage = part.Usage
		}
	}
}

// Errors are ones that the library knows, before the answer and in the middle of a stream.
func TestOpenAIClientErrors(t *testing.T) {
	s, m := newChat(t, nil)
	c := s.client(t)
	var known *openai.APIError
	if _, err := c.CreateChatCompletion(t.Context(), asking("chain/nothing", "hi")); !errors.As(err, &known) || known.HTTPStatusCode != 404 || known.Code != "model_not_found" || *known.Param != "model" {
		t.Errorf("got %v", err)
	}
	m.answer = func(_ context.Context, r gateway.Request) (gateway.Answer, error) {
		return gateway.Answer{}, &gateway.FailedError{Class: "rate_limited", Message: "slow down"}
	}
	if _, err := c.CreateChatCompletionStream(t.Context(), asking("gpt-4o", "hi")); !errors.As(err, &known) || known.HTTPStatusCode != 429 || known.Type != "rate_limit_error" {
		t.Errorf("got %v", err)
	}
	m.answer = func(_ context.Context, r gateway.Request) (gateway.Answer, error) {
		_, _ = says("half")(t.Context(), r)
		return gateway.Answer{}, &gateway.FailedError{Class: "stream_interrupted", Message: "the stream was cut"}
	}
	stream, err := c.CreateChatCompletionStream(t.Context(), asking("gpt-4o", "hi"))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	for err == nil {
		_, err = stream.Recv()
	}
	if !errors.As(err, &known) || known.Message != "the stream was cut" {
		t.Errorf("the stream ended with %v", err)
	}
}
