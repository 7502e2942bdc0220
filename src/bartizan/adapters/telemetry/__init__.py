"""Telemetry that leaves the process: Prometheus, OpenTelemetry, lines of JSON, signed webhooks."""
