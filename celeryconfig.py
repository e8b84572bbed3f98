"""Every Celery setting, each with its reason. Versions meant: Celery 5.7, kombu 5.7."""

from datetime import timedelta as _timedelta

from kombu import Queue as _Queue

from mailrelay import aws as _aws
from mailrelay.items import DUE_SHARDS as _DUE_SHARDS
from mailrelay.provision import queue_attributes as _queue_attributes
from mailrelay.settings import SettingsError as _SettingsError
from mailrelay.settings import load as _load

try:
    _settings = _load()
    _region = _aws.region(_settings)
except _SettingsError as _error:
    raise SystemExit(f"mailrelay: {_error}") from None

# --- The broker -----------------------------------------------------------------------------

# kombu's SQS transport with what it lacks; credentials and endpoint are boto3's own.
broker_url = "mailrelay-sqs://"

broker_transport_options = {
    "region": _region,
    "queue_name_prefix": _settings.queue_prefix,
    # Should kombu ever have to create a queue, it is the one that `mailrelay init` creates.
    "visibility_timeout": int(_queue_attributes(_settings)["VisibilityTimeout"]),
    "sqs-creation-attributes": _queue_attributes(_settings),
    # A long poll: each costs a fraction of a cent a thousand, and a worker that is told to end waits
    # for the ones under way (tasks/shutdown.py).
    "wait_time_seconds": 5,
    # When SQS took a message: how long it waited is counted (tasks/polls.py).
    "fetch_message_attributes": {"MessageSystemAttributeNames": ["SentTimestamp"]},
    # How long kombu waits after an empty poll; at 0 it would spin where SQS answers at once.
    "polling_interval": 0.02,
    # kombu encodes the body in base64 by itself; this would be the second time.
    "sqs_base64_encoding": False,
    # A publisher is a web request or a worker's thread: it must not wait long for a broker that
    # is down, since the sweep enqueues what could not be.
    "client-config": {
        "connect_timeout": 1,
        "read_timeout": 3,
        "retries": {"mode": "standard", "total_max_attempts": 2},
        **_aws.FRUGAL,
    },
    # The same for opening a connection: kombu would try for 4 s, with pauses of 2 s.
    "max_retries": 0,
}

# A worker that starts before the broker waits for it, and one that loses it comes back: for ever,
# and not only the default 100 times.
broker_connection_retry_on_startup = True
broker_connection_max_retries = None

# A web process and a worker publish from as many threads as they have; a connection costs an idle
# socket.
broker_pool_limit = 10

# --- Messages -------------------------------------------------------------------------------

# Messages hold ids; anything but JSON is not ours.
accept_content = ["json"]
task_serializer = "json"

# DynamoDB holds the results.
task_ignore_result = True

# A publisher that fails does not try again: the email is due, and the sweep finds it.
task_publish_retry = False

# One queue for the emails and one for the sweep, which must run while thousands of emails wait.
# A queue that is named nowhere is a mistake, not one to be created.
task_queues = [_Queue("deliver", routing_key="deliver"), _Queue("sweep", routing_key="sweep")]
task_default_queue = "deliver"
task_routes = {"tasks.sweep": {"queue": "sweep"}}
task_create_missing_queues = False

# --- Workers --------------------------------------------------------------------------------

# A worker waits for the network nearly all of its time.
worker_pool = "tasks.pool:TaskPool"
worker_concurrency = _settings.concurrency

# As many messages in hand as can be sent at once, and no more: each lives for a minute only, and
# another worker may be idle.
worker_prefetch_multiplier = 1

# A message is a hint and is deleted as soon as a thread takes it. Recovery has one owner, the
# sweep; SQS, which would deliver an unacknowledged message again, is not it.
task_acks_late = False

# Events and remote control go over a fan-out of our own (tasks/fanout.py). Celery's step for
# remote control would want kombu's; tasks/control.py has one in its place.
worker_enable_remote_control = False
worker_send_task_events = _settings.events

# --- Beat -----------------------------------------------------------------------------------

timezone = "UTC"
enable_utc = True

# Beat's entries are constants and each is safe to run twice: nothing to keep in a file, and no
# reason for a traceback when one cannot be enqueued.
beat_scheduler = "tasks.scheduler:Scheduler"

beat_schedule = {
    f"sweep-{_shard}": {
        "task": "tasks.sweep",
        "schedule": _timedelta(seconds=_settings.sweep_interval),
        "args": (_shard,),
        # As long as the message lives, and not only until the next one comes: beat's clock says
        # when it expires and the worker's whether it has. A pile does no harm, since a process
        # sweeps a shard once at a time.
        "options": {"expires": _settings.message_ttl},
    }
    for _shard in range(_DUE_SHARDS)
}
