package upstream

import "fmt"

// anthropic answers in the shape of Anthropic's messages.
func (a *answer) anthropic() {
	finish := a.Finish
	if finish == "" {
		finish = "end_turn"
	}
	if !a.stream {
		a.w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(a.w, `{"id":"msg_simulated","type":"message","role":"assistant","model":%s,"content":[{"type":"text","text":%s}],"stop_reason":%q,"usage":{"input_tokens":%d,"output_tokens":%d}}`,
			quote(a.model), quote(a.text()), finish, InputTokens, OutputTokens)
		return
	}
	a.w.Header().Set("Content-Type", "text/event-stream")
	event := func(name, data string) { a.send("event: %s\ndata: %s\n\n", name, data) }
	event("message_start", fmt.Sprintf(`{"type":"message_start","message":{"id":"msg_simulated","type":"message","role":"assistant","model":%s,"content":[],"stop_reason":null,"usage":{"input_tokens":%d,"output_tokens":1}}}`, quote(a.model), InputTokens))
	if !a.keepAlive("event: ping\ndata: {\"type\":\"ping\"}\n\n") {
		return
	}
	failed := func() {
		event("error", fmt.Sprintf(`{"type":"error","error":{"type":%s,"message":%s}}`, quote(a.ErrorEvent), quote("the server reports "+a.ErrorEvent)))
	}
	if a.ErrorEvent != "" && !a.Cut {
		failed()
		return
	}
	first, second := a.halves()
	event("content_block_start", `{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}`)
	delta := func(s string) {
		event("content_block_delta", `{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":`+quote(s)+`}}`)
	}
	delta(first)
	if a.ErrorEvent != "" {
		failed()
		return
	}
	if !a.middle() {
		return
	}
	delta(second)
	event("content_block_stop", `{"type":"content_block_stop","index":0}`)
	event("message_delta", fmt.Sprintf(`{"type":"message_delta","delta":{"stop_reason":%q,"stop_sequence":null},"usage":{"output_tokens":%d}}`, finish, OutputTokens))
	if !a.NoDone {
		event("message_stop", `{"type":"message_stop"}`)
	}
}
