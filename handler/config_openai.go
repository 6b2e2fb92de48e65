package main

import (
	"context"
	"net/url"
	"os"
	"strings"
	"unicode/utf8"

	"chatkeep/handler/agent"
	"chatkeep/handler/chat"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
)

// openAI is which model answers.
type openAI struct {
	agent.OpenAIConfig
	identity *entra // whose token stands in place of a key; nil: there is a key
	scope    string
}

const maxInstructions = 64 << 10 // bytes

// openAI reads how to reach a model.
func (e *environment) openAI(c *config) {
	o := openAI{scope: "https://cognitiveservices.azure.com/.default"}
	var api, key, auth, scope, file string
	e.read("OpenAI",
		setting{"OPENAI_BASE_URL", "", "with `AGENT=openai`: the URL of an OpenAI-compatible API with its version, such as `https://….openai.azure.com/openai/v1`", text(&o.BaseURL)},
		setting{"OPENAI_API", "chat", "which of its APIs: `chat` (completions) or `responses`", oneOf(&api, "chat", "responses")},
		setting{"OPENAI_MODEL", "", "the model, or with Azure the deployment's name", text(&o.Model)},
		setting{"OPENAI_API_KEY", "", "its key", text(&key)},
		setting{"OPENAI_AUTH", "key", "`entra`: no key, but a token of the managed identity, or outside Azure of `az login`", oneOf(&auth, "key", "entra")},
		setting{"OPENAI_SCOPE", "", "with `OPENAI_AUTH=entra`: the token's scope; none: that of Azure OpenAI, or of Foundry with a host of it", text(&scope)},
		setting{"AGENT_INSTRUCTIONS", "", "what the model is told about its part, at most 64 KiB", text(&o.Instructions)},
		setting{"AGENT_INSTRUCTIONS_FILE", "", "or a file that holds it", text(&file)},
		setting{"AGENT_CONTEXT_TOKENS", "8192", "of the newest whole turns that the model is given, estimated as a third of their bytes; 0: none", integer(&o.ContextTokens, 0, 10_000_000)},
	)
	if c.agent != "openai" {
		if o.BaseURL != "" {
			e.refuse("OPENAI_BASE_URL", "is set, but AGENT is not openai")
		}
		return
	}
	u, err := url.Parse(o.BaseURL)
	if err != nil || !isHTTPS(o.BaseURL) || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		e.refuse("OPENAI_BASE_URL", "must be an https URL, or http on loopback, without user, query and fragment")
		return
	}
	if o.Model == "" {
		e.refuse("OPENAI_MODEL", "must be set with AGENT=openai")
	}
	switch {
	case auth == "entra" && key != "":
		e.refuse("OPENAI_AUTH", "is entra, but OPENAI_API_KEY holds a key: remove one")
	case auth == "entra":
		o.identity = &entra{clientID: e.text("AZURE_CLIENT_ID"), inAzure: e.inAzure()}
	case key == "":
		e.refuse("OPENAI_API_KEY", "must be set, or OPENAI_AUTH=entra")
	case scope != "":
		e.refuse("OPENAI_SCOPE", "goes with OPENAI_AUTH=entra")
	}
	if host := u.Hostname(); strings.HasSuffix(host, ".services.ai.azure.com") {
		o.scope = "https://ai.azure.com/.default"
	}
	if scope != "" {
		o.scope = scope
	}
	o.Instructions = e.instructions(o.Instructions, file)
	o.BaseURL, o.Responses, o.Key = strings.TrimRight(o.BaseURL, "/"), api == "responses", chat.Secret(key)
	c.openAI = &o
}

// instructions are what is given, or what a file holds.
func (e *environment) instructions(given, file string) string {
	name := "AGENT_INSTRUCTIONS"
	if file != "" {
		name = "AGENT_INSTRUCTIONS_FILE"
		if given != "" {
			e.refuse(name, "and AGENT_INSTRUCTIONS are both set: keep one")
		}
		content, err := os.ReadFile(file)
		if err != nil {
			e.refuse(name, "must be a file that can be read")
		}
		given = strings.TrimSpace(string(content))
	}
	if len(given) > maxInstructions || !utf8.ValidString(given) {
		e.refuse(name, "must be UTF-8 of at most 64 KiB")
	}
	return given
}

// agent returns the agent, which asks nobody yet.
func (o *openAI) agent(deadlines agent.Deadlines) (*agent.OpenAI, error) {
	if o.identity != nil {
		credential, err := o.identity.credential()
		if err != nil {
			return nil, err
		}
		o.Token = func(ctx context.Context) (string, error) {
			token, err := credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{o.scope}})
			return token.Token, err
		}
	}
	return agent.NewOpenAI(o.OpenAIConfig, deadlines), nil
}
