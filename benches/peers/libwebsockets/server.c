/* libwebsockets as a benchmark server: server PORT. Echo.
 *
 * One queue of whole messages per connection, since the library asks for writing from its
 * WRITEABLE callback only. */
#include <libwebsockets.h>
#include <stdlib.h>
#include <string.h>

struct message {
    struct message *next;
    size_t length;
    int binary;
    unsigned char bytes[]; /* LWS_PRE of room, then the payload */
};

struct session {
    struct message *first, *last;
    struct message *growing; /* a message whose fragments are still coming */
};

static void drop(struct session *session) {
    while (session->first) {
        struct message *next = session->first->next;
        free(session->first);
        session->first = next;
    }
    free(session->growing);
    session->growing = NULL;
}

static int receive(struct lws *wsi, struct session *session, const void *in, size_t length) {
    size_t before = session->growing ? session->growing->length : 0;
    struct message *message =
        realloc(session->growing, sizeof *message + LWS_PRE + before + length);
    if (!message)
        return -1;
    memcpy(message->bytes + LWS_PRE + before, in, length);
    message->length = before + length;
    message->next = NULL;
    session->growing = message;
    if (!lws_is_final_fragment(wsi) || lws_remaining_packet_payload(wsi))
        return 0;
    message->binary = lws_frame_is_binary(wsi);
    session->growing = NULL;
    if (session->first)
        session->last->next = message;
    else
        session->first = message;
    session->last = message;
    lws_callback_on_writable(wsi);
    return 0;
}

static int transmit(struct lws *wsi, struct session *session) {
    struct message *message = session->first;
    if (!message)
        return 0;
    int kind = message->binary ? LWS_WRITE_BINARY : LWS_WRITE_TEXT;
    int sent = lws_write(wsi, message->bytes + LWS_PRE, message->length, kind);
    session->first = message->next;
    size_t length = message->length;
    free(message);
    if (sent < 0 || (size_t)sent < length)
        return -1;
    if (session->first)
        lws_callback_on_writable(wsi);
    return 0;
}

static int callback(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in,
                    size_t length) {
    switch (reason) {
    case LWS_CALLBACK_ESTABLISHED:
        memset(user, 0, sizeof(struct session));
        return 0;
    case LWS_CALLBACK_RECEIVE:
        return receive(wsi, user, in, length);
    case LWS_CALLBACK_SERVER_WRITEABLE:
        return transmit(wsi, user);
    case LWS_CALLBACK_CLOSED:
        drop(user);
        return 0;
    default:
        return 0;
    }
}

static const struct lws_protocols protocols[] = {
    {"echo", callback, sizeof(struct session), 64 << 10, 0, NULL, 0},
    {NULL, NULL, 0, 0, 0, NULL, 0},
};

int main(int count, char **words) {
    if (count < 2)
        return 1;
    lws_set_log_level(LLL_ERR, NULL);
    struct lws_context_creation_info info = {0};
    info.port = atoi(words[1]);
    info.iface = "127.0.0.1";
    info.protocols = protocols;

    struct lws_context *context = lws_create_context(&info);
    if (!context)
        return 1;
    while (lws_service(context, 0) >= 0)
        ;
    lws_context_destroy(context);
    return 0;
}
