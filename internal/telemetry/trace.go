package telemetry

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// traceScope names what makes the spans.
const traceScope = "github.com/fermata-run/fermata"

// traceFlushTimeout bounds how long a node that stops waits for its last spans to be taken.
const traceFlushTimeout = 5 * time.Second

// traceVariables are the standard ones that switch tracing on.
var traceVariables = [...]string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"}

// Tracer sends spans to the OTLP endpoint of the standard variables. Where none is set it makes spans that go nowhere and
// cost nothing. The exporter reads the other standard variables itself. Close sends what is left.
func Tracer(ctx context.Context, build Build, node string, lookup func(string) (string, bool)) (t trace.Tracer, closeTracer func(), err error) {
	wanted := false
	for _, name := range traceVariables {
		value, _ := lookup(name)
		wanted = wanted || value != ""
	}
	if !wanted {
		return NoTracer(), func() {}, nil
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("connect to the OTLP endpoint: %w", err)
	}
	who, err := resource.New(ctx, resource.WithAttributes(
		attribute.String("service.name", "fermata"), attribute.String("service.version", build.Version), attribute.String("service.instance.id", node),
	), resource.WithFromEnv())
	if err != nil {
		return nil, nil, fmt.Errorf("read the OpenTelemetry variables: %w", err)
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(who))
	return provider.Tracer(traceScope, trace.WithInstrumentationVersion(build.Version)), func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), traceFlushTimeout)
		defer cancel()
		_ = provider.Shutdown(ctx)
	}, nil
}

// NoTracer makes spans that go nowhere.
func NoTracer() trace.Tracer { return noop.NewTracerProvider().Tracer(traceScope) }
