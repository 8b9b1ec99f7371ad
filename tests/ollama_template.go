// Renders requests through a TEMPLATE as Ollama does: the same template engine, functions and
// options; tools and messages read into types with Ollama's fields, in its order; neighbours of one
// role joined (ollama 0.33: template/template.go, api/types.go).
//
//	go run ollama_template.go TEMPLATE_FILE <REQUESTS >PROMPTS
//
// A request is a line of JSON with messages and tools; a prompt is a line with a JSON string.
package main

import (
	"bufio"
	"encoding/json"
	"os"
	"strings"
	"text/template"
)

type Property struct {
	Type        any      `json:"type,omitempty"`
	Items       any      `json:"items,omitempty"`
	Description string   `json:"description,omitempty"`
	Enum        []any    `json:"enum,omitempty"`
	Properties  any      `json:"properties,omitempty"`
	Required    []string `json:"required,omitempty"`
}

type Tool struct {
	Type     string `json:"type"`
	Function struct {
		Name        string `json:"name"`
		Description string `json:"description"`
		Parameters  struct {
			Type       string              `json:"type"`
			Defs       any                 `json:"$defs,omitempty"`
			Items      any                 `json:"items,omitempty"`
			Required   []string            `json:"required,omitempty"`
			Properties map[string]Property `json:"properties"`
		} `json:"parameters"`
	} `json:"function"`
}

type ToolCall struct {
	Function struct {
		Name      string         `json:"name"`
		Arguments map[string]any `json:"arguments"`
	} `json:"function"`
}

type Message struct {
	Role      string     `json:"role"`
	Content   string     `json:"content"`
	Thinking  string     `json:"thinking,omitempty"`
	ToolCalls []ToolCall `json:"tool_calls,omitempty"`
}

type Request struct {
	Messages []Message
	Tools    []Tool
}

func joined(messages []Message) (all []Message) {
	for _, message := range messages {
		last := len(all) - 1
		if last >= 0 && all[last].Role == message.Role && message.Role != "tool" {
			all[last].Content += "\n\n" + message.Content
		} else {
			all = append(all, message)
		}
	}
	return all
}

func require(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	text, err := os.ReadFile(os.Args[1])
	require(err)
	parsed, err := template.New("").Option("missingkey=zero").Funcs(template.FuncMap{
		"json": func(value any) string {
			text, _ := json.Marshal(value)
			return string(text)
		},
	}).Parse(string(text))
	require(err)
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<26)
	out := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var request Request
		require(json.Unmarshal(lines.Bytes(), &request))
		var prompt strings.Builder
		require(parsed.Execute(&prompt, map[string]any{
			"Messages": joined(request.Messages),
			"Tools":    request.Tools,
			"Response": "",
		}))
		require(out.Encode(prompt.String()))
	}
	require(lines.Err())
}
