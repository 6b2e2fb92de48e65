package store

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"chatkeep/handler/logs"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/go-json-experiment/json"
)

const (
	redisScope = "https://redis.azure.com/.default"

	// EntraLifetime is how long a connection may live. A token is good for 5 minutes at least when it is used, and Redis ends its
	// connections when it expires.
	EntraLifetime = 4 * time.Minute

	askAgain    = time.Second            // after a failure
	renewWithin = 500 * time.Millisecond // while the last token is still good
)

// errNoToken means that there is no token to show to Redis.
var errNoToken = logs.Because(logs.Auth, errors.New("no token for Redis from Entra ID"))

// entra signs in to Redis by tokens of Entra ID instead of a password. A token that is still good bridges an outage of the source.
type entra struct {
	credential azcore.TokenCredential
	username   string

	asking chan struct{} // holds one value while somebody asks; what follows belongs to them
	token  azcore.AccessToken
	failed error     // of the last ask, or nil
	at     time.Time // of the last failure
}

// EntraCredentials returns a provider for Connection.Credentials: the user name is the identity's object id, or when it is empty the
// token's. The provider is safe for concurrent use, and asks one at a time.
func EntraCredentials(credential azcore.TokenCredential, username string) func(context.Context) (string, string, error) {
	e := &entra{credential: credential, username: username, asking: make(chan struct{}, 1)}
	return e.credentials
}

func (e *entra) credentials(ctx context.Context) (username, password string, err error) {
	select {
	case e.asking <- struct{}{}:
		defer func() { <-e.asking }()
	case <-ctx.Done():
		return "", "", fmt.Errorf("%w: %w", errNoToken, ctx.Err())
	}
	e.renew(ctx)
	if !e.good() {
		return "", "", fmt.Errorf("%w: %w", errNoToken, e.failed)
	}
	if e.username != "" {
		return e.username, e.token.Token, nil
	}
	username, err = objectID(e.token.Token)
	return username, e.token.Token, err
}

// renew asks for a token, unless the source has just failed. The credential answers from its memory while that is fresh.
func (e *entra) renew(ctx context.Context) {
	if e.failed != nil && time.Since(e.at) < askAgain {
		return
	}
	if e.good() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, renewWithin)
		defer cancel()
	}
	token, err := e.credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{redisScope}})
	if err != nil {
		e.failed, e.at = err, time.Now()
		return
	}
	e.token, e.failed = token, nil
}

func (e *entra) good() bool {
	return e.token.Token != "" && time.Now().Before(e.token.ExpiresOn)
}

// objectID reads oid from a token that Redis, not we, will verify.
func objectID(token string) (string, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "", fmt.Errorf("%w: REDIS_USERNAME is not set, and the token is not a JWT", errNoToken)
	}
	var claims struct {
		ObjectID string `json:"oid"`
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(text, &claims) != nil || claims.ObjectID == "" {
		return "", fmt.Errorf("%w: REDIS_USERNAME is not set, and the token has no oid", errNoToken)
	}
	return claims.ObjectID, nil
}
