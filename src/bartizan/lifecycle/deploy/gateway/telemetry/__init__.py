"""What operators see of a running gateway: numbers, events, traces, alerts. Never inputs, outputs or names."""
