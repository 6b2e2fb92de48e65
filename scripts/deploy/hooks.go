package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// check says what could not work before azd makes anything. On a first provisioning alerts wait for the first package.
func check() error {
	given, err := parameters("location") // on the first run azd asks for it after its hooks
	if err != nil {
		return err
	}
	if err := checkRegion(given); err != nil {
		return err
	}
	sayWhoIsTold(given)
	if os.Getenv("ACTION_GROUP_ID") == "" { // an output: nothing was made yet
		return command("azd", "env", "set", "CHATKEEP_ALERTS_ENABLED", "false")
	}
	return nil
}

// checkRegion asks where Flex Consumption runs. Without the Azure CLI nobody can be asked, and Azure itself refuses the region later.
func checkRegion(given map[string]any) error {
	if given["hosting"] != "flex" {
		return nil
	}
	location := given["location"].(string)
	if location == "" {
		fmt.Println("The region was not checked, for it is not chosen yet")
		return nil
	}
	if !hasAzure() {
		fmt.Println("The region was not checked, for the Azure CLI (az) is missing")
		return nil
	}
	said, err := az("functionapp", "list-flexconsumption-locations")
	if err != nil {
		fmt.Println("The region was not checked:", err)
		return nil
	}
	var regions []struct{ Name string }
	if err := json.Unmarshal(said, &regions); err != nil {
		return fmt.Errorf("az functionapp list-flexconsumption-locations: %w", err)
	}
	plain := func(region string) string { return strings.ToLower(strings.ReplaceAll(region, " ", "")) }
	var names []string
	for _, region := range regions {
		names = append(names, plain(region.Name))
	}
	if slices.Contains(names, plain(location)) {
		return nil
	}
	return fmt.Errorf("location: Flex Consumption does not run in %s. Choose one of %s, or CHATKEEP_HOSTING=premium", location, strings.Join(names, ", "))
}

func sayWhoIsTold(given map[string]any) {
	if given["alertEmail"] == "" {
		fmt.Println("CHATKEEP_ALERT_EMAIL is empty: alerts will fire, and NOBODY IS TOLD")
	}
	if given["alertsEnabled"] == false {
		fmt.Println("Alerts tell nobody until the package is published")
	}
}

// storage waits until a blob can be written where the package goes. That shows the deployer's role, which is as old as the app's. Who
// has no such role, or cannot be asked, goes on: publishing tells for itself.
func storage() error {
	container := os.Getenv("PACKAGE_CONTAINER_URL")
	var why string
	switch {
	case container == "":
		return errors.New("PACKAGE_CONTAINER_URL is missing: provision first")
	case os.Getenv("CHATKEEP_VNET_ENABLED") == "true":
		why = "it is private"
	case !hasAzure():
		why = errNoAzure.Error()
	default:
		probe := []string{"--blob-url", container + "/probe", "--auth-mode", "login", "--output", "none"}
		err := patiently("Azure does not know the roles on the storage account yet", isRoleUnknown,
			"az", append([]string{"storage", "blob", "upload", "--data", "probe", "--overwrite"}, probe...)...)
		if err == nil {
			return command("az", append([]string{"storage", "blob", "delete"}, probe...)...)
		}
		why = err.Error()
	}
	fmt.Printf("The storage account cannot be tried (%s). If publishing is refused with 403, repeat azd deploy in five minutes\n", why)
	return nil
}

// link approves Front Door's Private Link.
func link() error {
	if os.Getenv("CHATKEEP_FRONT_DOOR_PRIVATE_LINK") != "true" {
		return nil
	}
	if !hasAzure() {
		return fmt.Errorf("%w: approve \"%s\" under the Function App's private endpoint connections, for until then Front Door answers 5xx", errNoAzure, ours)
	}
	return approve(os.Getenv("AZURE_RESOURCE_GROUP"), os.Getenv("FUNCTION_APP_NAME"), "--subscription", os.Getenv("AZURE_SUBSCRIPTION_ID"))
}

const ours = "Chatkeep Front Door" // the request's message, in front-door-routes.bicep

// approve waits for Front Door's request, which may appear minutes after the deployment, and approves it. more are further arguments.
func approve(group, app string, more ...string) error {
	for n := 1; ; n++ {
		said, err := az(append([]string{"network", "private-endpoint-connection", "list", "--resource-group", group, "--name", app, "--type", "Microsoft.Web/sites"}, more...)...)
		if err != nil {
			return err
		}
		var connections []struct {
			ID         string
			Properties struct {
				PrivateLinkServiceConnectionState struct{ Status, Description string }
			}
		}
		if err := json.Unmarshal(said, &connections); err != nil {
			return fmt.Errorf("az network private-endpoint-connection list: %w", err)
		}
		found := false
		for _, connection := range connections {
			state := connection.Properties.PrivateLinkServiceConnectionState
			if state.Description != ours {
				continue
			}
			switch state.Status {
			case "Approved":
				found = true
			case "Pending":
				found = true
				if err := command("az", "network", "private-endpoint-connection", "approve", "--id", connection.ID, "--description", ours, "--output", "none"); err != nil {
					return err
				}
				fmt.Println("Approved Front Door's Private Link")
			}
		}
		if found {
			return nil
		}
		if n == linkTries {
			return errors.New("the Private Link request of Front Door did not appear. Until it is approved Front Door answers 5xx; once it is there: go run ./scripts/deploy link")
		}
		fmt.Printf("Front Door's Private Link request is not there yet (%d of %d): again in %v\n", n, linkTries, pause())
		time.Sleep(pause())
	}
}

// alerts lets alerts tell somebody, now that there is a package that can answer, and in every later provisioning.
func alerts() error {
	if err := command("azd", "env", "set", "CHATKEEP_ALERTS_ENABLED", "true"); err != nil {
		return err
	}
	if !hasAzure() {
		fmt.Println("Alerts tell nobody before the next azd provision, for the Azure CLI (az) is missing")
		return nil
	}
	return enableAlerts(os.Getenv("ACTION_GROUP_ID"))
}

func enableAlerts(actionGroup string) error {
	return command("az", "resource", "update", "--ids", actionGroup, "--set", "properties.enabled=true", "--output", "none")
}
