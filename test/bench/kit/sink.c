/*
 * A hub that does as little as a hub can, so that what is measured is its client: AMQP 1.0 over TLS, every token on
 * `$cbs` is good, every message of telemetry is accepted, and whoever gives credit on `…/messages/devicebound` gets
 * commands without end. One thread, qpid-proton.
 *
 *     cc -O2 -o sink sink.c -lqpid-proton-proactor -lqpid-proton-core
 *     sink HOST PORT CERTIFICATE KEY [PROTOCOLS]        PROTOCOLS: of TLS, as OpenSSL names them
 *
 * Prints a line of JSON when it listens, and one with its counts when a connection has ended.
 */
#include <proton/connection.h>
#include <proton/delivery.h>
#include <proton/disposition.h>
#include <proton/link.h>
#include <proton/listener.h>
#include <proton/message.h>
#include <proton/proactor.h>
#include <proton/sasl.h>
#include <proton/session.h>
#include <proton/ssl.h>
#include <proton/transport.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <signal.h>
#include <sys/prctl.h>
#endif

enum {
  FRAME_BYTES = 65536,    /* as IoT Hub's */
  WINDOW_FRAMES = 5000,   /* of a session */
  CREDIT = 1000,          /* topped up at half, as proton and IoT Hub do */
  IDLE_MS = 240000,
  COMMAND_BODY_BYTES = 256,
  MESSAGE_BYTES = 1 << 20,
};

typedef struct {
  unsigned long long messages, transfers, commands, accepted, otherwise;
  pn_link_t *replies; /* from $cbs to the client */
  pn_bytes_t pending; /* the reply that waits for credit */
} client_t;

static pn_ssl_domain_t *tls;
static char incoming[MESSAGE_BYTES];

/* ---- commands: one encoded message, in which the number of the command is written anew each time ---- */

static char command[2048];
static size_t command_bytes;
static char *command_id, *command_sequence;
static uint64_t commands_made;

static void make_command(void) {
  static const char id[] = "bench-command-00000000000000000000000";
  static const int64_t sequence = 0x1122334455667788;
  char body[COMMAND_BODY_BYTES];
  memset(body, 'x', sizeof body);
  pn_message_t *m = pn_message();
  pn_atom_t atom = {.type = PN_STRING, .u.as_bytes = pn_bytes(sizeof id - 1, id)};
  pn_message_set_id(m, atom);
  pn_message_set_address(m, "/devices/bench/messages/devicebound");
  pn_message_set_content_type(m, "application/json");
  pn_message_set_content_encoding(m, "utf-8");
  pn_data_t *annotations = pn_message_annotations(m);
  pn_data_put_map(annotations);
  pn_data_enter(annotations);
  pn_data_put_symbol(annotations, pn_bytes(21, "x-opt-sequence-number"));
  pn_data_put_long(annotations, sequence);
  pn_data_exit(annotations);
  pn_data_t *properties = pn_message_properties(m);
  pn_data_put_map(properties);
  pn_data_enter(properties);
  pn_data_put_string(properties, pn_bytes(4, "kind"));
  pn_data_put_string(properties, pn_bytes(6, "reboot"));
  pn_data_exit(properties);
  pn_message_set_inferred(m, true);
  pn_data_put_binary(pn_message_body(m), pn_bytes(sizeof body, body));
  command_bytes = sizeof command;
  if (pn_message_encode(m, command, &command_bytes)) exit(1);
  pn_message_free(m);
  command_id = memmem(command, command_bytes, id, sizeof id - 1);
  static const char big_endian[] = {0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, (char)0x88};
  command_sequence = memmem(command, command_bytes, big_endian, sizeof big_endian);
  if (!command_id || !command_sequence) exit(1);
}

static void next_command(void) {
  uint64_t n = ++commands_made;
  for (int i = 7; i >= 0; i--, n >>= 8) command_sequence[i] = (char)n;
  n = commands_made;
  for (int i = 36; i >= 14; i--, n /= 10) command_id[i] = (char)('0' + n % 10);
}

static void send_commands(client_t *client, pn_link_t *link) {
  while (pn_link_credit(link) > 0) {
    next_command();
    char tag[16] = "lock-token";
    memcpy(tag + 8, command_sequence, 8);
    pn_delivery(link, pn_dtag(tag, sizeof tag));
    pn_link_send(link, command, command_bytes);
    pn_link_advance(link);
    client->commands++;
  }
}

/* ---- telemetry ---- */

/* A transfer whose message starts with a data section of four length bytes is a batch: each section is a message. */
static unsigned messages_in(const unsigned char *bytes, size_t size) {
  static const unsigned char section[] = {0x00, 0x53, 0x75, 0xb0};
  unsigned count = 0;
  for (size_t at = 0; at + 8 <= size && !memcmp(bytes + at, section, 4); count++) {
    at += 8 + ((size_t)bytes[at + 4] << 24 | bytes[at + 5] << 16 | bytes[at + 6] << 8 | bytes[at + 7]);
  }
  return count ? count : 1;
}

static void put_token(client_t *client, size_t size);

static void receive(client_t *client, pn_link_t *link, pn_delivery_t *delivery) {
  if (!pn_delivery_readable(delivery) || pn_delivery_partial(delivery)) return;
  ssize_t size = pn_link_recv(link, incoming, sizeof incoming);
  if (size < 0) size = 0;
  const char *address = pn_terminus_get_address(pn_link_target(link));
  pn_delivery_update(delivery, PN_ACCEPTED);
  pn_delivery_settle(delivery);
  if (address && !strcmp(address, "$cbs")) put_token(client, (size_t)size);
  else {
    client->transfers++;
    client->messages += messages_in((unsigned char *)incoming, (size_t)size);
  }
  if (pn_link_credit(link) <= CREDIT / 2) pn_link_flow(link, CREDIT - pn_link_credit(link));
}

/* ---- $cbs ---- */

static void send_reply(client_t *client) {
  if (!client->pending.size || !client->replies || pn_link_credit(client->replies) <= 0) return;
  pn_delivery(client->replies, pn_dtag("cbs", 3));
  pn_link_send(client->replies, client->pending.start, client->pending.size);
  pn_delivery_settle(pn_link_current(client->replies));
  free((void *)client->pending.start);
  client->pending = pn_bytes_null;
}

static void put_token(client_t *client, size_t size) {
  pn_message_t *request = pn_message(), *reply = pn_message();
  if (pn_message_decode(request, incoming, size)) return;
  pn_message_set_correlation_id(reply, pn_message_get_id(request));
  pn_data_t *properties = pn_message_properties(reply);
  pn_data_put_map(properties);
  pn_data_enter(properties);
  pn_data_put_string(properties, pn_bytes(11, "status-code"));
  pn_data_put_int(properties, 200);
  pn_data_put_string(properties, pn_bytes(18, "status-description"));
  pn_data_put_string(properties, pn_bytes(2, "OK"));
  pn_data_exit(properties);
  size_t room = 1024;
  char *bytes = malloc(room);
  if (pn_message_encode(reply, bytes, &room)) exit(1);
  client->pending = pn_bytes(room, bytes);
  pn_message_free(request);
  pn_message_free(reply);
  send_reply(client);
}

/* ---- links ---- */

static bool is_commands(pn_link_t *link) {
  const char *address = pn_terminus_get_address(pn_link_source(link));
  const char *last = address ? strrchr(address, '/') : NULL;
  return last && !strcasecmp(last, "/devicebound");
}

static void attach(client_t *client, pn_link_t *link) {
  pn_terminus_copy(pn_link_source(link), pn_link_remote_source(link));
  pn_terminus_copy(pn_link_target(link), pn_link_remote_target(link));
  pn_link_set_snd_settle_mode(link, pn_link_remote_snd_settle_mode(link));
  pn_link_open(link);
  if (pn_link_is_receiver(link)) pn_link_flow(link, CREDIT);
  else if (!is_commands(link)) client->replies = link;
}

static void settled(client_t *client, pn_link_t *link, pn_delivery_t *delivery) {
  if (!pn_delivery_updated(delivery)) return;
  if (pn_delivery_remote_state(delivery) == PN_ACCEPTED) client->accepted++;
  else client->otherwise++;
  pn_delivery_settle(delivery);
  send_commands(client, link);
}

static void accept_connection(pn_listener_t *listener) {
  pn_transport_t *transport = pn_transport();
  pn_transport_set_server(transport);
  pn_transport_set_max_frame(transport, FRAME_BYTES);
  pn_transport_set_idle_timeout(transport, IDLE_MS);
  pn_sasl_allowed_mechs(pn_sasl(transport), "ANONYMOUS");
  pn_transport_require_auth(transport, false);
  pn_ssl_init(pn_ssl(transport), tls, NULL);
  pn_listener_accept2(listener, NULL, transport);
}

static void print_counts(const client_t *client) {
  printf("{\"messages\":%llu,\"transfers\":%llu,\"commands\":%llu,\"accepted\":%llu,\"otherwise\":%llu}\n",
         client->messages, client->transfers, client->commands, client->accepted, client->otherwise);
  fflush(stdout);
}

static void handle(pn_event_t *event) {
  pn_connection_t *connection = pn_event_connection(event);
  client_t *client = connection ? pn_connection_get_context(connection) : NULL;
  pn_link_t *link = pn_event_link(event);
  switch (pn_event_type(event)) {
  case PN_LISTENER_OPEN:
    printf("{\"listening\":true}\n");
    fflush(stdout);
    break;
  case PN_LISTENER_ACCEPT:
    accept_connection(pn_event_listener(event));
    break;
  case PN_CONNECTION_INIT:
    pn_connection_set_container(connection, "sink");
    pn_connection_set_context(connection, calloc(1, sizeof(client_t)));
    break;
  case PN_CONNECTION_REMOTE_OPEN:
    pn_connection_open(connection);
    break;
  case PN_SESSION_REMOTE_OPEN:
    pn_session_set_incoming_capacity(pn_event_session(event), (size_t)WINDOW_FRAMES * FRAME_BYTES);
    pn_session_open(pn_event_session(event));
    break;
  case PN_LINK_REMOTE_OPEN:
    attach(client, link);
    break;
  case PN_LINK_FLOW:
    if (pn_link_is_receiver(link)) break;
    if (is_commands(link)) send_commands(client, link);
    else send_reply(client);
    break;
  case PN_DELIVERY:
    if (pn_link_is_receiver(link)) receive(client, link, pn_event_delivery(event));
    else if (is_commands(link)) settled(client, link, pn_event_delivery(event));
    break;
  case PN_LINK_REMOTE_DETACH:
  case PN_LINK_REMOTE_CLOSE:
    if (client->replies == link) client->replies = NULL;
    pn_link_close(link);
    break;
  case PN_SESSION_REMOTE_CLOSE:
    pn_session_close(pn_event_session(event));
    break;
  case PN_CONNECTION_REMOTE_CLOSE:
    pn_connection_close(connection);
    break;
  case PN_TRANSPORT_CLOSED:
    if (!client) break;
    print_counts(client);
    pn_connection_set_context(connection, NULL);
    free((void *)client->pending.start);
    free(client);
    break;
  default:
    break;
  }
}

int main(int argc, char **argv) {
  if (argc < 5) return 64;
#ifdef __linux__
  prctl(PR_SET_PDEATHSIG, SIGTERM); /* with who started it */
#endif
  tls = pn_ssl_domain(PN_SSL_MODE_SERVER);
  if (pn_ssl_domain_set_credentials(tls, argv[3], argv[4], NULL)) return 78;
  if (argc > 5 && pn_ssl_domain_set_protocols(tls, argv[5])) return 78;
  make_command();
  pn_proactor_t *proactor = pn_proactor();
  char address[PN_MAX_ADDR];
  pn_proactor_addr(address, sizeof address, argv[1], argv[2]);
  pn_proactor_listen(proactor, pn_listener(), address, 64);
  for (;;) {
    pn_event_batch_t *batch = pn_proactor_wait(proactor);
    for (pn_event_t *event; (event = pn_event_batch_next(batch));) handle(event);
    pn_proactor_done(proactor, batch);
  }
}
