pub async fn measure(_: &mut crate::report::Report) {}
