//! The room `app`: what an application writes down: routes, handlers, answers.

mod answer_filter;
pub(crate) mod application;
pub(crate) mod authorization;
pub(crate) mod body;
pub(crate) mod body_handler;
pub(crate) mod body_intake;
pub(crate) mod body_route;
mod body_routing;
#[cfg(feature = "client")]
pub(crate) mod byte_handler;
pub(crate) mod call;
#[cfg(feature = "client")]
pub(crate) mod connect_options;
#[cfg(feature = "client")]
pub(crate) mod connector;
mod content_type;
pub(crate) mod cors;
pub(crate) mod deferral;
#[cfg(feature = "client")]
mod dial;
#[cfg(feature = "client")]
pub(crate) mod dialled_routes;
mod disk_folder;
mod embedded_folder;
pub(crate) mod endpoint;
pub(crate) mod event_stream_route;
pub(crate) mod file_body;
pub(crate) mod folder;
mod folder_path;
mod folder_source;
pub(crate) mod foreign_route;
pub(crate) mod handler;
pub(crate) mod long_body;
mod made_once;
pub(crate) mod metric_values;
pub(crate) mod metrics;
pub(crate) mod multipart;
pub(crate) mod open_folders;
pub(crate) mod origins;
pub(crate) mod own_metrics;
pub(crate) mod pattern;
pub(crate) mod piece_handler;
pub(crate) mod raw_handler;
mod representation;
pub(crate) mod response;
pub(crate) mod response_on_loop;
pub(crate) mod route_config;
pub(crate) mod route_table;
pub(crate) mod routing;
pub(crate) mod setters;
pub(crate) mod spelled_out;
#[cfg(feature = "json")]
pub(crate) mod value_handler;
pub(crate) mod web_socket_route;
