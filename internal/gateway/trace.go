package gateway

import (
	"context"
	"encoding/hex"
	"strings"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/fermata-run/fermata/internal/usage"
)

// spanOf begins the span of a logical call; each of its requests is a span inside it. Names and attributes are
// OpenTelemetry's for generative AI, what those do not know is under fermata. Prompts and answers are in none of them.
func (g *Gateway) spanOf(ctx context.Context, req *Request) (context.Context, trace.Span) {
	if run := req.Caller.Run; run != uuid.Nil && !trace.SpanContextFromContext(ctx).IsValid() {
		// All calls of a run are one trace, whichever node makes them: its id is the run's.
		ctx = trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: trace.TraceID(run), SpanID: trace.SpanID(run[8:]), TraceFlags: trace.FlagsSampled, Remote: true,
		}))
	}
	ctx, span := g.tracer.Start(ctx, strings.TrimSpace("chat "+req.Chain.Name))
	if !span.IsRecording() {
		return ctx, span
	}
	for _, a := range []attribute.KeyValue{
		attribute.String("gen_ai.agent.name", req.Caller.Agent), attribute.String("fermata.workflow", req.Caller.Workflow),
		attribute.String("fermata.step", req.Caller.Step), attribute.String("fermata.chain", req.Chain.Name),
	} {
		if a.Value.AsString() != "" {
			span.SetAttributes(a)
		}
	}
	if req.Caller.Run != uuid.Nil {
		span.SetAttributes(attribute.String("fermata.run", "run_"+hex.EncodeToString(req.Caller.Run[:])))
	}
	return ctx, span
}

// requestSpan begins the span of one request.
func (g *Gateway) requestSpan(ctx context.Context, r route) (context.Context, trace.Span) {
	return g.tracer.Start(ctx, "chat "+r.model, trace.WithSpanKind(trace.SpanKindClient))
}

// endSpan says what became of a request.
func endSpan(span trace.Span, line *usage.Call, answered string) {
	if span.IsRecording() {
		if answered != "" {
			span.SetAttributes(attribute.String("gen_ai.response.model", answered))
		}
		span.SetAttributes(
			attribute.String("gen_ai.operation.name", "chat"), attribute.String("gen_ai.provider.name", line.Provider), attribute.String("gen_ai.request.model", line.Model),
			attribute.Int64("gen_ai.usage.input_tokens", line.Tokens.InputTotal()), attribute.Int64("gen_ai.usage.output_tokens", line.Tokens.OutputTotal()),
			attribute.Int64("gen_ai.usage.cache_read.input_tokens", line.Tokens.CacheRead), attribute.Int("fermata.depth", line.Depth), attribute.Int("fermata.try", line.Try),
			attribute.String("fermata.cost_usd", line.Cost.String()), attribute.Bool("fermata.simulated", line.Simulated),
		)
		if line.RequestID != "" {
			span.SetAttributes(attribute.String("fermata.provider_request_id", line.RequestID))
		}
		if line.Class != "" { // the message is the provider's, and may quote a prompt: it stays in the record of the call
			span.SetAttributes(attribute.String("error.type", line.Class))
			span.SetStatus(codes.Error, line.Class)
		}
	}
	span.End()
}

// endCall says what became of a logical call.
func endCall(span trace.Span, a *Answer, err error) {
	if err != nil {
		what, _, _ := strings.Cut(err.Error(), ":")
		span.SetStatus(codes.Error, what)
	} else if span.IsRecording() {
		span.SetAttributes(attribute.String("gen_ai.response.model", a.Asked), attribute.Int("fermata.depth", a.Depth))
	}
	span.End()
}
