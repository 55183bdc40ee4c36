package upstream

import "fmt"

// openai answers in the shape of OpenAI's chat completions.
func (a *answer) openai() {
	finish := a.Finish
	if finish == "" {
		finish = "stop"
	}
	usage := fmt.Sprintf(`{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}`, InputTokens, OutputTokens, InputTokens+OutputTokens)
	if a.NoUsage {
		usage = "null"
	}
	if !a.stream {
		a.w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(a.w, `{"id":"chatcmpl-simulated","object":"chat.completion","model":%s,"choices":[{"index":0,"message":{"role":"assistant","content":%s},"finish_reason":%q}],"usage":%s}`,
			quote(a.model), quote(a.text()), finish, usage)
		return
	}
	a.w.Header().Set("Content-Type", "text/event-stream")
	chunk := func(delta, finish string) {
		a.send("data: {\"id\":\"chatcmpl-simulated\",\"object\":\"chat.completion.chunk\",\"model\":%s,\"choices\":[{\"index\":0,\"delta\":%s,\"finish_reason\":%s}]}\n\n", quote(a.model), delta, finish)
	}
	chunk(`{"role":"assistant"}`, "null")
	if !a.keepAlive(": working\n\n") {
		return
	}
	if a.ErrorEvent != "" && !a.Cut {
		a.send("data: {\"error\":{\"message\":%s,\"type\":%s,\"code\":%s}}\n\n", quote("the server reports "+a.ErrorEvent), quote(a.ErrorEvent), quote(a.ErrorEvent))
		return
	}
	first, second := a.halves()
	chunk(`{"content":`+quote(first)+`}`, "null")
	if a.ErrorEvent != "" {
		a.send("data: {\"error\":{\"message\":%s,\"type\":%s}}\n\n", quote("the server reports "+a.ErrorEvent), quote(a.ErrorEvent))
		return
	}
	if !a.middle() {
		return
	}
	chunk(`{"content":`+quote(second)+`}`, "null")
	chunk(`{}`, quote(finish))
	if !a.NoUsage {
		a.send("data: {\"id\":\"chatcmpl-simulated\",\"object\":\"chat.completion.chunk\",\"model\":%s,\"choices\":[],\"usage\":%s}\n\n", quote(a.model), usage)
	}
	if !a.NoDone {
		a.send("data: [DONE]\n\n")
	}
}
