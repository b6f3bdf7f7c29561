"""The embedded stack: real Apache Kafka and MongoDB servers, and the services, as child processes of this one.

For the demo, development and tests on one Linux machine, without Docker. Must never be imported by a service, and never
be used for production: there is no security and, with one broker, no redundancy.
"""

from deploy.local.errors import LocalStackError
from deploy.local.kafka import LocalKafka
from deploy.local.mongo import LocalMongo
from deploy.local.processes import ServiceProcess
from deploy.local.stack import Addresses, LocalStack

__all__ = ["Addresses", "LocalKafka", "LocalMongo", "LocalStack", "LocalStackError", "ServiceProcess"]
