"""The check of the deployment template: a Bicep parser and published type schemas, no cloud."""
