//! The setters that a server and a route share: those of the server are the defaults of its routes.

/// The setters, written once.
///
/// The type has `fn change(&mut self, impl FnOnce(&mut SessionOptions) + 'static)`, `fn origins_mut(&mut
/// self) -> &mut OriginOptions` and `fn converter_mut(&mut self) -> &mut Converter`; the macro is told how
/// the setters take and give back their receiver.
macro_rules! shared_setters {
    ($this:ident: [$($receiver:tt)+] -> $Own:ty) => {
        $crate::words::options::session_option_setters! { $this: [$($receiver)+] -> $Own }
        $crate::app::setters::origin_setters! { $this: [$($receiver)+] -> $Own }
    };
}
pub(crate) use shared_setters;

/// Those among them that are about who may ask, and in which format: for routes without sessions too.
macro_rules! origin_setters {
    ($this:ident: [$($receiver:tt)+] -> $Own:ty) => {
        /// The origins whose pages may connect beside this server's own, such as `https://example.com`
        /// (RFC 6455 section 10.2). `https://*.example.com` stands for all names below one, `:*` for any
        /// port; a default port may be written or not. `file://`, `capacitor://localhost`,
        /// `chrome-extension://*` and `null` are origins too. What could never match is refused at
        /// start-up. Default: none.
        ///
        /// A request without an `Origin` comes from a device or a program, and passes. One with an
        /// `Origin` passes if that is listed, or equals `Host`: the same host, in any spelling, and the
        /// same port, whatever the scheme. A host in `Host` that is an IP address or `localhost` is
        /// believed, and so is one of [`hosts`](Self::hosts). Any other name can be made to point here by
        /// whoever owns it (DNS rebinding): where nobody named `hosts`, it passes with a warning, but
        /// never on a connection to a loopback address. Everything else gets 403, with both values and
        /// what to do. So does a request that may change something (POST, PUT, PATCH, DELETE); GET, HEAD and
        /// OPTIONS are never refused for their `Origin`, but where an event stream is asked for.
        ///
        /// ```
        /// use wirewheel::WebSockets;
        /// let options = WebSockets::new()
        ///     .hosts(["box.example", "*.box.example"])
        ///     .allowed_origins(["https://dashboard.example", "capacitor://localhost", "file://"]);
        /// # let _ = options;
        /// ```
        pub fn allowed_origins<S: Into<String>>(
            $($receiver)+,
            origins: impl IntoIterator<Item = S>,
        ) -> $Own {
            $this.origins_mut().allowed = Some(origins.into_iter().map(Into::into).collect());
            $this
        }

        /// Lets the pages of anybody connect, as if no request had an `Origin`. For servers that ask for
        /// more than a cookie can bring, such as a token in the first message, or that anybody may use.
        ///
        /// ```
        /// use wirewheel::WebSockets;
        /// let public = WebSockets::new().allow_any_origin();
        /// # let _ = public;
        /// ```
        pub fn allow_any_origin($($receiver)+) -> $Own {
            $this.origins_mut().allowed = Some(["*".to_owned()].into());
            $this
        }

        /// The names under which browsers reach this server, such as `box.example`, without scheme and
        /// port; `*.example.com` stands for all names below one. Its own pages connect from those, from IP
        /// addresses and from `localhost`, and from no other name; see
        /// [`allowed_origins`](Self::allowed_origins). An empty list lets no page in by a name, but for
        /// `localhost`: right for a route that hands out a shell. Default: not said.
        ///
        /// ```
        /// use wirewheel::WebSockets;
        /// let options = WebSockets::new().hosts(["box.local", "box.example"]);
        /// # let _ = options;
        /// ```
        pub fn hosts<S: Into<String>>(
            $($receiver)+,
            hosts: impl IntoIterator<Item = S>,
        ) -> $Own {
            $this.origins_mut().hosts = Some(hosts.into_iter().map(Into::into).collect());
            $this
        }

        /// Installs what turns messages into values and back (Ktor's `contentConverter`); feature `json`.
        ///
        /// ```
        /// use wirewheel::json::JsonConverter;
        /// use wirewheel::WebSockets;
        /// let with_values = WebSockets::new().content_converter(JsonConverter);
        /// # let _ = with_values;
        /// ```
        #[cfg(feature = "json")]
        pub fn content_converter(
            $($receiver)+,
            converter: impl $crate::protocol::content::ContentConverter + 'static,
        ) -> $Own {
            *$this.converter_mut() = $crate::protocol::content::Converter::new(converter);
            $this
        }
    };
}
pub(crate) use origin_setters;
