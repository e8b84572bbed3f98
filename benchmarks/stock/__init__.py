"""The same relay as the documentation of Celery and boto3 would have one write it.

What mailrelay is measured against: the mail is in the message, one task for each recipient, one
item for each attempt, the vendor's own call, and kombu's SQS transport as it comes. It promises less
than mailrelay: nothing finds an email whose message is lost, and one that comes twice is sent twice.

Nothing here is slow on purpose, and each choice has its source beside it. In its favour, where the
documentation leaves a choice:

- threads in place of prefork, Celery's default, which would take a process for each of the 64;
- boto3's clients are made once, with as many connections as threads (its default is 10);
- the API writes nothing to DynamoDB before it answers.

    app.py    the Celery application and its one task
    vendors.py  one call for each provider
    web.py    the Flask view
    serving.py  how gunicorn serves it
    table.py  creates the table
"""
