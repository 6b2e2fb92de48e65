// Deploy deploys Chatkeep with the Azure CLI alone, and is what azd's hooks run, on every system. From the root of the project:
//
//	go run ./scripts/deploy [--yes] [--no-smoke]   shows what would change, deploys it, publishes the package, tries it
//	go run ./scripts/deploy check                  before azd provisions: what could not work is said now
//	go run ./scripts/deploy link                   after azd provisioned: approves Front Door's Private Link, once it is there
//	go run ./scripts/deploy storage                before azd publishes: waits until the package can be written
//	go run ./scripts/deploy alerts                 after azd published: lets alerts tell somebody
//
// Parameters are the environment variables that infra/main.parameters.json names. --yes does not ask before it deploys. The try needs a
// user's token, in TOKEN or from az account get-access-token; --no-smoke leaves it out, for pipelines that run as an application.
// CHATKEEP_PAUSE_SECONDS is the time between two tries of what is not ready yet.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

func main() {
	err := run(os.Args[1:])
	if usage, is := errors.AsType[usageError](err); is {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// usageError is a mistake of who called: nothing was done.
type usageError string

func (e usageError) Error() string { return string(e) }

func run(args []string) error {
	hooks := map[string]func() error{"check": check, "link": link, "storage": storage, "alerts": alerts}
	if len(args) == 1 && hooks[args[0]] != nil {
		return hooks[args[0]]()
	}
	yes, smoke := slices.Contains(args, "--yes"), !slices.Contains(args, "--no-smoke")
	if slices.ContainsFunc(args, func(a string) bool { return a != "--yes" && a != "--no-smoke" }) {
		return usageError("Usage: scripts/deploy.sh [--yes] [--no-smoke]")
	}
	return deploy(yes, smoke)
}

// deploy does all of it.
func deploy(yes, smoke bool) error {
	given, err := parameters()
	if err != nil {
		return err
	}
	if !hasAzure() {
		return errNoAzure
	}
	if _, err := az("account", "show"); err != nil {
		return errors.New("sign in first: az login")
	}
	if err := checkRegion(given); err != nil {
		return err
	}
	environment := given["environmentName"].(string)
	deployment := "chatkeep-" + environment
	_, err = az("deployment", "sub", "show", "--name", deployment)
	first := err != nil
	if first {
		given["alertsEnabled"] = false // until there is a package that could answer
	}
	sayWhoIsTold(given)
	if err := command("go", "run", "./scripts/package"); err != nil {
		return err
	}

	file, err := parametersFile(given)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file) }()
	template := []string{"--name", deployment, "--location", given["location"].(string), "--template-file", "infra/main.bicep", "--parameters", file}
	if err := command("az", append([]string{"deployment", "sub", "what-if"}, template...)...); err != nil {
		return err
	}
	if !yes {
		fmt.Print("Deploy this? [y/N] ")
		answer, _ := bufio.NewReader(os.Stdin).ReadString('\n')
		if !slices.Contains([]string{"y", "yes"}, strings.ToLower(strings.TrimSpace(answer))) {
			return errors.New("nothing was deployed")
		}
	}
	if err := command("az", append(append([]string{"deployment", "sub", "create"}, template...), "--output", "none")...); err != nil {
		return err
	}
	made, err := outputsOf(deployment)
	if err != nil {
		return err
	}
	if err := publish(made, given["hosting"] == "premium"); err != nil {
		return err
	}
	if given["frontDoorPrivateLink"] == true {
		if err := approve(made.group, made.app); err != nil {
			return err
		}
	}
	if first {
		if err := enableAlerts(made.actionGroup); err != nil {
			return err
		}
	}
	fmt.Println("Deployed:", made.url)
	if !smoke {
		return nil
	}
	return try(made, given["authAudience"].(string))
}

// outputs are what the deployment made.
type outputs struct{ url, origin, group, app, container, actionGroup string }

func outputsOf(deployment string) (outputs, error) {
	said, err := az("deployment", "sub", "show", "--name", deployment)
	if err != nil {
		return outputs{}, err
	}
	var shown struct {
		Properties struct {
			Outputs map[string]struct{ Value any }
		}
	}
	if err := json.Unmarshal(said, &shown); err != nil {
		return outputs{}, fmt.Errorf("az deployment sub show: %w", err)
	}
	var missing error
	output := func(wanted string) string {
		for name, o := range shown.Properties.Outputs {
			if value, is := o.Value.(string); is && strings.EqualFold(name, wanted) { // the service changes their case
				return value
			}
		}
		missing = fmt.Errorf("the deployment has no output %s", wanted)
		return ""
	}
	made := outputs{
		output("API_URL"), output("ORIGIN_URL"), output("AZURE_RESOURCE_GROUP"), output("FUNCTION_APP_NAME"), output("PACKAGE_CONTAINER_URL"),
		output("ACTION_GROUP_ID"),
	}
	return made, missing
}

// publish uploads dist.zip. A role that was given a moment ago is unknown for minutes, so the refusals that tell of it are tried again.
func publish(made outputs, premium bool) error {
	if !premium {
		return patiently("Azure does not know the app's role on its storage yet", isRoleUnknown,
			"az", "functionapp", "deployment", "source", "config-zip", "--resource-group", made.group, "--name", made.app, "--src", "dist.zip", "--output", "none")
	}
	if err := patiently("Azure does not know your role on the storage yet", isRoleUnknown,
		"az", "storage", "blob", "upload", "--blob-url", made.container+"/handler.zip", "--file", "dist.zip", "--overwrite", "--auth-mode", "login", "--output", "none"); err != nil {
		return err
	}
	if err := command("az", "functionapp", "restart", "--resource-group", made.group, "--name", made.app, "--output", "none"); err != nil {
		return err
	}
	said, err := az("functionapp", "show", "--resource-group", made.group, "--name", made.app)
	if err != nil {
		return err
	}
	var app struct{ ID string }
	if err := json.Unmarshal(said, &app); err != nil {
		return fmt.Errorf("az functionapp show: %w", err)
	}
	return command("az", "rest", "--method", "POST", "--url", app.ID+"/syncfunctiontriggers?api-version=2025-03-01", "--output", "none")
}

// isRoleUnknown tells whether a refusal by storage is one that passes: the platform's words, then the Azure CLI's.
func isRoleUnknown(said string) bool {
	return strings.Contains(said, "InaccessibleStorageException") || strings.Contains(said, "AuthorizationPermissionMismatch") ||
		strings.Contains(said, "You do not have the required permissions")
}

func try(made outputs, audience string) error {
	token := os.Getenv("TOKEN")
	if token == "" {
		scope := "api://" + strings.Split(audience, ",")[0] + "/access_as_user"
		said, _ := az("account", "get-access-token", "--scope", scope) // without one, token stays empty
		var answer struct{ AccessToken string }
		_ = json.Unmarshal(said, &answer)
		token = answer.AccessToken
	}
	how := fmt.Sprintf("ORIGIN_URL=%s scripts/smoke.sh %s TOKEN", made.origin, made.url)
	if token == "" {
		return fmt.Errorf("it was not tried, for there is no token. Get one (docs/identity.md), then: %s", how)
	}
	if _, err := exec.LookPath("sh"); err != nil {
		return fmt.Errorf("it was not tried, for there is no sh. Where there is one: %s", how)
	}
	smoke := exec.Command("sh", "scripts/smoke.sh", made.url)
	smoke.Env = append(os.Environ(), "TOKEN="+token, "ORIGIN_URL="+made.origin)
	if os.Getenv("WAIT") == "" {
		smoke.Env = append(smoke.Env, "WAIT=1200")
	}
	smoke.Stdout, smoke.Stderr = os.Stdout, os.Stderr
	return smoke.Run()
}

// How often what is not ready yet is tried: storage for 5 minutes, with the time that the Azure CLI takes, and the Private Link for 10.
const (
	storageTries = 16
	linkTries    = 40
)

func pause() time.Duration {
	seconds, err := time.ParseDuration(os.Getenv("CHATKEEP_PAUSE_SECONDS") + "s")
	if err != nil {
		return 15 * time.Second
	}
	return seconds
}
