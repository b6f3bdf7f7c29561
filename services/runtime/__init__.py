"""What every service shares: settings, logs, metrics, health, Kafka clients, dead letters, shutdown. A closed set."""
