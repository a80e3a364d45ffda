//! The exact requests behind every dangerous act, behind the status and behind the children: method, path, query, content type and body,
//! as they leave the client, and in which order. A canned service below `kube::Client` answers reads from a handful of objects and writes down
//! what is sent.

mod canned;
mod passes;
mod passwords;
mod shop;

mod acts;
mod children;
mod ended;
mod guards;
mod order;
mod templates;
