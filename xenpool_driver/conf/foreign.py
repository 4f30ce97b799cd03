# Licensed under the Apache License, Version 2.0; see LICENSE.
"""What the libraries of OpenStack read from the same files.

They are named here, not asked: the command line runs without most of them,
and must still know that ``transport_url`` is no slip.
"""

from __future__ import annotations

SECTIONS = frozenset(
    {
        'audit_middleware_notifications',
        'cors',
        'healthcheck',
        'keystone_authtoken',
        'oslo_concurrency',
        'oslo_limit',
        'oslo_messaging_amqp',
        'oslo_messaging_kafka',
        'oslo_messaging_metrics',
        'oslo_messaging_notifications',
        'oslo_messaging_rabbit',
        'oslo_messaging_tracing',
        'oslo_middleware',
        'oslo_middleware_tracing',
        'oslo_policy',
        'oslo_reports',
        'oslo_versionedobjects',
        'profiler',
        'ssl',
    }
)
"""Sections of oslo's libraries and of keystonemiddleware."""

DEFAULTS = frozenset(
    {
        # oslo.config
        'config_dir',
        'config_file',
        'config_source',
        # oslo.log
        'debug',
        'default_log_levels',
        'fatal_deprecations',
        'instance_format',
        'instance_uuid_format',
        'log_color',
        'log_config_append',
        'log_date_format',
        'log_dir',
        'log_file',
        'log_options',
        'log_rotate_interval',
        'log_rotate_interval_type',
        'log_rotation_type',
        'logging_context_format_string',
        'logging_debug_format_suffix',
        'logging_default_format_string',
        'logging_exception_prefix',
        'logging_user_identity_format',
        'max_logfile_count',
        'max_logfile_size_mb',
        'publish_errors',
        'rate_limit_burst',
        'rate_limit_except_level',
        'rate_limit_interval',
        'syslog_log_facility',
        'use_journal',
        'use_json',
        'use_stderr',
        'use_syslog',
        'watch_log_file',
        # oslo.messaging
        'conn_pool_min_size',
        'conn_pool_ttl',
        'control_exchange',
        'executor_thread_pool_size',
        'rpc_conn_pool_size',
        'rpc_ping_enabled',
        'rpc_response_timeout',
        'transport_url',
        # oslo.service
        'api_paste_config',
        'backdoor_port',
        'backdoor_socket',
        'client_socket_timeout',
        'graceful_shutdown_timeout',
        'max_header_line',
        'run_external_periodic_tasks',
        'tcp_keepidle',
        'wsgi_default_pool_size',
        'wsgi_keep_alive',
        'wsgi_log_format',
        'wsgi_server_debug',
    }
)
"""Options of theirs in section [DEFAULT], with underscores."""
