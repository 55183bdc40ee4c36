package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	openai "github.com/sashabaranov/go-openai"
)

// openAIClient is a client that knows of nothing but OpenAI's API. Its key is anybody's: the service has none.
func (s *service) openAIClient() *openai.Client {
	cfg := openai.DefaultConfig("a key")
	cfg.BaseURL = s.url + "/v1"
	return openai.NewClientWithConfig(cfg)
}

func chatOf(model string) openai.ChatCompletionRequest {
	seed := 1
	return openai.ChatCompletionRequest{
		Model: model, Seed: &seed, MaxCompletionTokens: 200,
		Messages: []openai.ChatCompletionMessage{{Role: "user", Content: "What does a fermata tell the orchestra?"}},
	}
}

// publishEssay publishes a workflow of one step, whose agent can be asked alone.
func (s *service) publishEssay(t *testing.T) {
	t.Helper()
	status, _, body := s.post(t, "/v1/workflows", map[string]any{"definition": map[string]any{
		"spec": "workflow/v1", "name": "e2e-essay",
		"input":  map[string]any{"type": "object", "required": []string{"topic"}, "properties": map[string]any{"topic": map[string]any{"type": "string"}}},
		"agents": map[string]any{"writer": map[string]any{"model": "gpt-4o", "max_tokens": 200, "instructions": "Write about it."}},
		"steps":  []any{map[string]any{"id": "write", "agent": "writer", "prompt": "${{ input.topic }}"}},
		"output": "${{ steps.write.output }}",
	}})
	if status != http.StatusCreated && status != http.StatusOK { // the same again is the version there is
		t.Fatalf("%d %s", status, body)
	}
}

// What can be asked is listed, and what is listed can be asked: a model, a chain, a published workflow, its agent.
func TestOpenAIClientListsModels(t *testing.T) {
	s := serviceFor(t)
	s.publishEssay(t)
	list, err := s.openAIClient().ListModels(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"gpt-4o", "claude-sonnet-4-6", "chain/production", "workflow/e2e-essay", "agent/e2e-essay/writer"} {
		if !slices.ContainsFunc(list.Models, func(m openai.Model) bool { return m.ID == id && m.Object == "model" && m.OwnedBy != "" }) {
			t.Errorf("%s is not listed", id)
		}
	}
}

// The program answers a client of OpenAI's API, whole and in parts, whatever stands behind the model's name. Each answer
// says what it cost, and that nobody real gave it.
func TestOpenAIClientChats(t *testing.T) {
	s := serviceFor(t)
	s.publishEssay(t)
	c := s.openAIClient()
	for _, model := range []string{"gpt-4o", "chain/production", "route/classification", "auto", "workflow/e2e-essay", "agent/e2e-essay/writer"} {
		t.Run(model, func(t *testing.T) {
			whole, err := c.CreateChatCompletion(t.Context(), chatOf(model))
			if err != nil {
				t.Fatal(err)
			}
			choice, h := whole.Choices[0], whole.Header()
			if choice.Message.Content == "" || choice.FinishReason != openai.FinishReasonStop || whole.Usage.PromptTokens == 0 || whole.Usage.CompletionTokens == 0 {
				t.Errorf("got %+v", whole)
			}
			if h.Get("Fermata-Simulated") != "true" || nanoUSD(t, h.Get("Fermata-Cost-Usd")) <= 0 {
				t.Errorf("got %v", h)
			}
			text, usage := streamedChat(t, c, chatOf(model))
			if usage == nil || usage.PromptTokens != whole.Usage.PromptTokens {
				t.Errorf("the stream's usage is %+v, that of the whole answer %+v", usage, whole.Usage)
			}
			// A run and an agent have seeds of their own.
			if own := strings.Contains(model, "e2e-essay"); text == "" || !own && text != choice.Message.Content {
				t.Errorf("streamed %q, whole %q", text, choice.Message.Content)
			}
		})
	}
}

func streamedChat(t *testing.T, c *openai.Client, request openai.ChatCompletionRequest) (text string, usage *openai.Usage) {
	t.Helper()
	request.StreamOptions = &openai.StreamOptions{IncludeUsage: true}
	stream, err := c.CreateChatCompletionStream(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return text, usage
		}
		if err != nil {
			t.Fatal(err)
		}
		if part.Usage != nil {
			usage = part.Usage
		}
		for _, choice := range part.Choices {
			text += choice.Delta.Content
		}
	}
}

// The cost in the header is the list price of the usage in the body; that of a workflow is what its run says it cost.
func TestOpenAIClientIsToldTheCost(t *testing.T) {
	s := serviceFor(t)
	s.publishEssay(t)
	c := s.openAIClient()
	const inputNano, outputNano = 2_500, 10_000 // of gpt-4o, per token
	for _, model := range []string{"gpt-4o", "agent/e2e-essay/writer", "workflow/e2e-essay"} {
		whole, err := c.CreateChatCompletion(t.Context(), chatOf(model))
		if err != nil {
			t.Fatal(err)
		}
		cost := nanoUSD(t, whole.Header().Get("Fermata-Cost-Usd"))
		if want := int64(whole.Usage.PromptTokens)*inputNano + int64(whole.Usage.CompletionTokens)*outputNano; cost != want {
			t.Errorf("%s: %d nano-USD for %+v, want %d", model, cost, whole.Usage, want)
		}
		run := whole.Header().Get("Fermata-Run")
		if !strings.HasPrefix(model, "workflow/") {
			if depth := whole.Header().Get("Fermata-Fallback-Depth"); run != "" || depth != "0" || whole.Header().Get("Fermata-Model") != "simulated/gpt-4o" {
				t.Errorf("%s: got %v", model, whole.Header())
			}
			continue
		}
		_, page := s.get(t, "/v1/runs/"+run)
		got := decode[struct {
			Status string
			Output string
			Cost   struct {
				Nano int64 `json:"nano_usd"`
			}
		}](t, page)
		if got.Status != "succeeded" || got.Output != whole.Choices[0].Message.Content || got.Cost.Nano != cost {
			t.Errorf("%s cost %d: %s", model, cost, page)
		}
	}
}

// nanoUSD reads a decimal amount of dollars.
func nanoUSD(t *testing.T, usd string) int64 {
	t.Helper()
	value, err := strconv.ParseFloat(usd, 64)
	if err != nil {
		t.Fatalf("%q is no amount", usd)
	}
	return int64(math.Round(value * 1e9))
}

// Errors are those that a client of OpenAI's API tells apart, before a stream as well.
func TestOpenAIClientIsToldErrors(t *testing.T) {
	s := serviceFor(t)
	s.publishEssay(t)
	c := s.openAIClient()
	two := chatOf("gpt-4o")
	two.N = 2
	for _, tc := range []struct {
		request    openai.ChatCompletionRequest
		status     int
		code, says string
	}{
		{chatOf("workflow/e2e-nobody"), http.StatusNotFound, "model_not_found", "e2e-nobody"},
		{chatOf("agent/e2e-essay/wirter"), http.StatusNotFound, "model_not_found", `did you mean "writer"`},
		{chatOf("chain/nobody"), http.StatusNotFound, "model_not_found", "production"},
		{two, http.StatusBadRequest, "invalid_value", "n must be 1"},
	} {
		ask := map[string]func(context.Context, openai.ChatCompletionRequest) error{
			"whole": func(ctx context.Context, r openai.ChatCompletionRequest) error {
				_, err := c.CreateChatCompletion(ctx, r)
				return err
			},
			"stream": func(ctx context.Context, r openai.ChatCompletionRequest) error {
				stream, err := c.CreateChatCompletionStream(ctx, r)
				if err == nil {
					stream.Close()
				}
				return err
			},
		}
		for how, ask := range ask {
			t.Run(fmt.Sprintf("%s n=%d %s", tc.request.Model, tc.request.N, how), func(t *testing.T) {
				var e *openai.APIError
				if err := ask(t.Context(), tc.request); !errors.As(err, &e) {
					t.Fatalf("got %v", err)
				}
				if e.HTTPStatusCode != tc.status || e.Code != tc.code || e.Type != "invalid_request_error" || !strings.Contains(e.Message, tc.says) {
					t.Errorf("got %d %v %s %s", e.HTTPStatusCode, e.Code, e.Type, e.Message)
				}
			})
		}
	}
}
